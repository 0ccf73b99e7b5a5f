package remains_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/node"
	"github.com/writ-io/writ/cmd/writ/remains"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// patience bounds every wait for what must happen.
const patience = pace.Patience

// start starts a quorum of one node.
func start(t *testing.T, dir string) (n *node.Node, api string) {
	t.Helper()
	peer, api := freeport.Address(t), freeport.Address(t)
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte("grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read, force, admin, guard]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := node.Start(ctx, node.Config{
		Name: "n1", Region: "eu", Cluster: "prod", DataDir: dir, Insecure: true, PolicyFile: policy,
		API: node.Address{Listen: api}, HTTP: node.Address{Listen: freeport.Address(t)}, Peer: node.Address{Listen: peer},
		Bootstrap: node.Bootstrap{Members: map[string]string{"n1": "http://" + peer}}, Heartbeat: pace.Heartbeat, Election: pace.Election,
	}, node.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Stop(context.Background()) }) // it may have been stopped
	return n, api
}

// acquire gets a lease, however long the quorum needs to grant it, and answers its token.
func acquire(t *testing.T, api, resource string) uint64 {
	t.Helper()
	conn, err := grpc.NewClient(api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		resp, err := writv1.NewLeaseServiceClient(conn).Acquire(t.Context(), &writv1.AcquireRequest{Resource: resource, Region: "eu", Ttl: durationpb.New(time.Second)})
		if err == nil {
			return resp.GetGrant().GetToken()
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// stopped is the directory of a node that has granted db, and the token.
func stopped(t *testing.T) (dir string, token uint64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "n1")
	n, api := start(t, dir)
	token = acquire(t, api, "db")
	if _, err := remains.Read(dir, hclog.NewNullLogger()); !errors.Is(err, remains.ErrRunning) || !strings.Contains(err.Error(), filepath.Join(dir, remains.LockFile)) {
		t.Fatalf("while its server runs: %v", err)
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	return dir, token
}

func TestReadWhatANodeLeft(t *testing.T) {
	dir, token := stopped(t)
	for name, of := range map[string]string{"the data directory": dir, "the store in it": filepath.Join(dir, remains.StoreDir)} {
		s, err := remains.Read(of, hclog.NewNullLogger())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Cluster != "prod" || s.Incarnation == "" || s.Epoch != 1 || s.Node != "n1" || s.AsOf.IsZero() {
			t.Errorf("%s: %+v", name, s)
		}
		if len(s.Nodes) != 1 || s.Nodes[0].GetRegion() != "eu" || s.Nodes[0].GetApiAddress() == "" {
			t.Errorf("%s: nodes %v", name, s.Nodes)
		}
		if db := s.Leases["db"]; db.GetToken() != token || db.GetRegion() != "eu" {
			t.Errorf("%s: %v, want token %d", name, db, token)
		}
	}
}

// What must not be planned from is refused, and the file is named that is wrong.
func TestReadRefuses(t *testing.T) {
	dir, _ := stopped(t)
	witness := filepath.Join(dir, remains.WitnessFile)
	w, err := quorum.LoadWitness(witness)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		harm func(t *testing.T, dir string)
		want error
		says string
	}{
		"nothing there": {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, fs.ErrNotExist, ""},
		"a file": {func(t *testing.T, dir string) {
			must(t, errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)))
		}, remains.ErrNoState, "not a directory"},
		"another directory": {func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, remains.StoreDir))) }, remains.ErrNoState, ""},
		"a damaged log": {func(t *testing.T, dir string) {
			harm(t, filepath.Join(dir, remains.StoreDir, "member", "wal", "*.wal"), func(raw []byte) { raw[600] ^= 0xff })
		}, remains.ErrDamaged, "wal"},
		"a damaged database": {func(t *testing.T, dir string) {
			harm(t, filepath.Join(dir, remains.StoreDir, "member", "snap", "db"), func(raw []byte) { clear(raw[:8192]) })
		}, remains.ErrDamaged, filepath.Join("snap", "db")},
		"an edited witness": {func(t *testing.T, dir string) {
			harm(t, filepath.Join(dir, remains.WitnessFile), func(raw []byte) { raw[len(raw)/2] ^= 1 })
		}, remains.ErrDamaged, remains.WitnessFile},
		"another cluster's witness": {func(t *testing.T, dir string) {
			other := w
			other.Cluster = "staging"
			saveWitness(t, dir, other)
		}, remains.ErrOlder, `"staging"`},
		"a store that was put back": {func(t *testing.T, dir string) {
			later := w
			later.AppliedIndex += 100
			saveWitness(t, dir, later)
		}, remains.ErrOlder, remains.WitnessFile},
		"a store of before": {func(t *testing.T, dir string) {
			later := w
			later.Epoch++
			saveWitness(t, dir, later)
		}, remains.ErrOlder, "epoch 2"},
	} {
		t.Run(name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(copied, os.DirFS(dir)))
			test.harm(t, copied)
			s, err := remains.Read(copied, hclog.NewNullLogger())
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), copied) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %+v, %v, want %v that names %s and %q", s, err, test.want, copied, test.says)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func saveWitness(t *testing.T, dir string, w quorum.Witness) {
	t.Helper()
	path := filepath.Join(dir, remains.WitnessFile)
	must(t, os.Remove(path))
	must(t, quorum.SaveWitness(path, w))
}

// harm changes the first file that a pattern finds.
func harm(t *testing.T, pattern string, change func([]byte)) {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	raw, err := os.ReadFile(found[0])
	must(t, err)
	change(raw)
	must(t, os.WriteFile(found[0], raw, 0o600))
}
