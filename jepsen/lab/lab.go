//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/disk"
	"github.com/writ-io/writ/jepsen/netns"
	"github.com/writ-io/writ/jepsen/slots/worker"
)

const (
	// GuardLease is G.
	GuardLease = 3 * time.Second
	// Slack is W. Pauses of guards stay below half of it, so that a busy machine has the other half.
	Slack = 2 * time.Second
	// DrainTime is how long a raised guard waits for older writes before it breaks them off.
	DrainTime = time.Second
	// WriterTTL is that of the writers' leases.
	WriterTTL = 1500 * time.Millisecond
	// Lapse is how long a guard has to be out of contact for the quorum to give it up, and a little longer.
	Lapse = GuardLease + Slack + time.Second
	// GuardCount is the number of guards.
	GuardCount = 3
	// GuardPort is what guards listen on.
	GuardPort = "8080"
	// GuardAdmin is where a guard tells of itself, within its namespace.
	GuardAdmin = "127.0.0.1:7420"
)

// The parties of the network beside the nodes, guards and writers.
const (
	Store = "store"
	// Observer is never cut off.
	Observer = "observer"
)

// Guard names the party of a guard, counted from 0.
func Guard(i int) string { return fmt.Sprintf("guard%d", i+1) }

// Writer names the party of a writer, counted from 0.
func Writer(i int) string { return fmt.Sprintf("writer%d", i+1) }

// Config says what to build. The programs and Dir are mandatory.
type Config struct {
	// Writ and Guard are the programs, see package cluster.
	Writ, Guard string
	// Etcd is a program that takes the nodes' place: the writers lock by its Mutex then, and write to the store without a
	// guard. Writ and Guard are not needed.
	Etcd string
	// Dir is an empty directory.
	Dir  string
	Seed uint64
	// Unguarded has the guards let everything pass.
	Unguarded bool
	// Atomic has the store compare tokens itself, and Postgres is the DSN of what it keeps the list in.
	Atomic   bool
	Postgres string
	// Writers is their number.
	Writers int
	// Matrix is how far the regions are from each other.
	Matrix Matrix
	// Disks has every node and every guard on a disk that can be harmed, see [Lab].Disks.
	Disks bool
	// Clients are parties from which the harness itself calls.
	Clients []string
	// TableWriters adds two writers that append to a list in PostgreSQL, under its fence, and say to this book what they do.
	// Nil: there are none.
	TableWriters *book.Book
	// Services adds a process with cron jobs in each region, with effects in PostgreSQL under its fence. They say to this book
	// what they do. Nil: there are none.
	Services *book.Book
	// Previous are the programs that nodes and guards are started as, to be rolled to Writ and Guard. Empty: they are these.
	Previous Release
	// Unfenced has PostgreSQL compare no tokens.
	Unfenced bool
	// Pair adds a failover group of two regions, see [Pair]; its writers and its store say what they do to this book. Nil:
	// there is none.
	Pair *book.Book
}

// Lab is a quorum, three guards, a store and writers. Fields are set by [Start].
type Lab struct {
	Config  Config
	Net     *netns.Net
	Nodes   *cluster.Cluster // nil with [Config].Etcd
	Set     *cluster.Processes
	Guards  [GuardCount]*cluster.Program // nil with [Config].Etcd
	Store   *cluster.Program
	Writers []*Worker
	Book    *book.Book
	// TableWriters and Services are those who write to PostgreSQL.
	TableWriters, Services []*Worker
	Pair                   *Pair // nil without [Config].Pair
	// Disks are those of the nodes and guards, by party; nil without [Config].Disks.
	Disks map[string]*disk.Disk

	programs    []*cluster.Program
	database    *cluster.Program // nil: there is none
	databaseDir string           // empty: there is none

	mu            sync.Mutex
	conns         []*grpc.ClientConn // guarded by mu, and so is what follows
	rolls         int                // to another release
	guardPrograms [GuardCount]string // empty: the first
}

// Start builds a lab, and waits until the guards are enrolled, at most until ctx ends. It says in b what is said.
func Start(ctx context.Context, config Config, b *book.Book) (*Lab, error) {
	if err := netns.Supported(); err != nil {
		return nil, err
	}
	l := &Lab{Config: config, Book: b, Set: cluster.NewProcesses()}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	var err error
	if l.Net, err = netns.New(l.Parties()...); err != nil {
		return err
	}
	if err := l.spread(); err != nil {
		return err
	}
	if err := l.startStore(); err != nil {
		return err
	}
	if l.Config.Disks {
		if err := l.addDisks(); err != nil {
			return err
		}
	}
	if l.Config.Etcd != "" {
		if err := l.startEtcd(ctx); err != nil {
			return err
		}
	} else if err := l.startQuorum(ctx); err != nil {
		return err
	}
	for i := range l.Config.Writers {
		if err := l.addWriter(i); err != nil {
			return err
		}
	}
	if l.Config.hasDatabase() {
		if err := l.startDatabase(ctx); err != nil {
			return err
		}
		if err := l.startDatabaseWriters(); err != nil {
			return err
		}
	}
	if l.Config.Pair != nil {
		return l.startPair(ctx)
	}
	return nil
}

// Parties are all parties of the network.
func (l *Lab) Parties() []string {
	parties := append([]string{Store, Observer}, l.Config.Clients...)
	parties = append(parties, cluster.Regions[:]...)
	if l.Config.Etcd == "" {
		for i := range l.Guards {
			parties = append(parties, Guard(i))
		}
	}
	for i := range l.Config.Writers {
		parties = append(parties, Writer(i))
	}
	if l.Config.Pair != nil {
		parties = append(parties, pairParties()...)
	}
	return append(parties, l.Config.databaseParties()...)
}

// Close ends every process and removes the network. It may be called again.
func (l *Lab) Close() error {
	l.mu.Lock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
	l.mu.Unlock()
	if l.Nodes != nil {
		l.Nodes.Close()
	}
	err := l.closeDatabase()
	l.Set.Close()
	err = errors.Join(err, l.closeDisks())
	if l.databaseDir != "" {
		err = errors.Join(err, os.RemoveAll(l.databaseDir))
	}
	if l.Net == nil {
		return err
	}
	return errors.Join(err, l.Net.Close())
}

// Check returns an error if a process has ended that nobody ended.
func (l *Lab) Check() error {
	var all []error
	if l.Nodes != nil {
		all = append(all, l.Nodes.Check())
	}
	for _, p := range l.programs {
		all = append(all, p.Check())
	}
	return errors.Join(all...)
}

// Logs are the paths of the logs of all processes, those of the nodes included.
func (l *Lab) Logs() []string {
	var paths []string
	if l.Nodes != nil {
		for _, name := range cluster.Regions {
			paths = append(paths, filepath.Join(l.Config.Dir, name+".log"))
		}
	}
	for _, p := range l.programs {
		paths = append(paths, p.Log)
	}
	return paths
}

// start starts a program as a part of the lab.
func (l *Lab) start(p *cluster.Program) error {
	p.Log, p.Processes = filepath.Join(l.Config.Dir, p.Name+".log"), l.Set
	if err := p.Start(); err != nil {
		return err
	}
	l.programs = append(l.programs, p)
	return nil
}

// self prepares a command that runs this program as a party, as [Child] knows by the variable.
func (l *Lab) self(party, variable string, config any) (*exec.Cmd, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := l.Net.Command(party, path)
	cmd.Env = append(os.Environ(), variable+"="+string(data))
	return cmd, nil
}

// Child does the work of a store or a writer if this program was started as one: it returns true then, and the code to exit
// with. Whoever builds labs calls it first.
func Child() (code int, ok bool) {
	switch {
	case os.Getenv(store.Variable) != "":
		return store.Main(), true
	case os.Getenv(writer.Variable) != "":
		return writer.Main(), true
	case os.Getenv(worker.Variable) != "":
		return worker.Main(), true
	}
	return 0, false
}

func (l *Lab) storeAddress() string { return l.Net.Address(Store) + ":" + store.Port }

func (l *Lab) startStore() error {
	var err error
	l.Store, err = l.addStore(l.Book, Store, store.Config{Listen: l.storeAddress(), Atomic: l.Config.Atomic, Postgres: l.Config.Postgres})
	return err
}

// addStore starts a store as a party, which says what it does to a book.
func (l *Lab) addStore(b *book.Book, party string, config store.Config) (*cluster.Program, error) {
	p := &cluster.Program{Name: party, Command: func() (*exec.Cmd, error) {
		cmd, err := l.self(party, store.Variable, config)
		if err == nil {
			cmd.Stdout = b.FromStore()
		}
		return cmd, err
	}}
	return p, l.start(p)
}

// Front is the URL that writes under a guard go to.
func (l *Lab) Front(guard int) string {
	return "http://" + l.Net.Address(Guard(guard)) + ":" + GuardPort
}

// Conn connects to a node, from where nothing is cut, until the lab is closed.
func (l *Lab) Conn(node int) (*grpc.ClientConn, error) {
	conn, err := l.Nodes.Dial(node)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conn)
	return conn, nil
}
