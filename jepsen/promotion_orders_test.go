//go:build linux

package jepsen_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/jepsen/appends/store"
)

const (
	// ordersVariable makes the test binary the orders application of a region, with this configuration.
	ordersVariable = "WRIT_JEPSEN_ORDERS"
	ordersListen   = "127.0.0.1:9000" // each namespace has a loopback of its own
	ordersGroup    = "orders"
	// writerPace is how often a writer writes, writerLimit how long it waits for an answer.
	writerPace, writerLimit = 15 * time.Millisecond, 2 * time.Second
)

// ordersConfig is what the application is told.
type ordersConfig struct{ DSN string }

// order is a row; receipt is what its writer is told when it has been committed.
type order struct{ ID string }

type receipt struct{ XID, LSN string }

// runOrders serves POST /orders: a row, in a transaction under the token of the writ that the guard has let through.
func runOrders() int {
	err := serveOrders()
	fmt.Fprintln(os.Stderr, "orders:", err)
	return 1
}

func serveOrders() error {
	var config ordersConfig
	if err := json.Unmarshal([]byte(os.Getenv(ordersVariable)), &config); err != nil {
		return err
	}
	pool, err := pgxpool.New(context.Background(), config.DSN)
	if err != nil {
		return err
	}
	fenced, err := pgfence.NewPool(pool, pgfence.Config{})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		told, err := takeOrder(r, fenced)
		switch {
		case errors.Is(err, fence.ErrStale):
			http.Error(w, err.Error(), http.StatusPreconditionFailed)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			_ = json.NewEncoder(w).Encode(told) // the writer has gone
		}
	})
	server := &http.Server{Addr: ordersListen, Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

func takeOrder(r *http.Request, fenced *pgfence.Pool) (told receipt, err error) {
	token, err := store.PresentedToken(r)
	if err != nil {
		return told, err
	}
	var row order
	if err := json.NewDecoder(r.Body).Decode(&row); err != nil {
		return told, err
	}
	ctx := context.WithoutCancel(r.Context()) // what was begun is finished
	err = fenced.Run(ctx, fence.Write{Resource: ordersGroup, Token: token}, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return insertOrder(ctx, tx, row.ID, &told)
	})
	return told, err
}

func insertOrder(ctx context.Context, tx pgx.Tx, id string, told *receipt) error {
	if _, err := tx.Exec(ctx, "insert into orders values ($1)", id); err != nil {
		return err
	}
	return tx.QueryRow(ctx, "select pg_current_xact_id()::text, pg_current_wal_insert_lsn()::text").Scan(&told.XID, &told.LSN)
}

// acked is a row that was acknowledged.
type acked struct {
	receipt
	region string
	token  uint64
	began  time.Time // when it was sent
}

// ordersBook is what was acknowledged to anybody.
type ordersBook struct {
	mu   sync.Mutex
	rows map[string]acked // guarded by mu
}

func (b *ordersBook) put(id string, a acked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows[id] = a
}

func (b *ordersBook) all() map[string]acked {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.rows)
}

// orderWriter writes one row after the other, wherever the writ that it has is for.
type orderWriter struct {
	name   string
	zombie bool // never takes a second writ
	book   *ordersBook
	fronts map[string]string // of the guards, by region
	http   *http.Client
	conns  []*grpc.ClientConn // of nodes, those to be preferred first

	mu       sync.Mutex
	count    map[string]int // guarded by mu; acknowledged, by region
	refused  int            // guarded by mu; by a guard or the storage
	last     string         // guarded by mu; what it was told last
	lastStop int            // guarded by mu; status of the last refusal
}

func newOrderWriter(name string, zombie bool, book *ordersBook, fronts map[string]string, conns []*grpc.ClientConn,
	dial func(context.Context, string) (net.Conn, error),
) *orderWriter {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }}
	return &orderWriter{name: name, zombie: zombie, book: book, fronts: fronts, conns: conns,
		http: &http.Client{Transport: transport, Timeout: writerLimit}, count: make(map[string]int)}
}

// run writes until ctx ends.
func (w *orderWriter) run(ctx context.Context) {
	defer w.http.CloseIdleConnections()
	pace := time.NewTicker(writerPace)
	defer pace.Stop()
	var writ, region string
	var token uint64
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		if writ == "" {
			var err error
			if writ, region, token, err = w.obtain(ctx); err != nil {
				w.note("", 0, err.Error())
				continue
			}
		}
		id := fmt.Sprintf("%s-%06d", w.name, n)
		began := time.Now()
		told, status, err := w.send(ctx, w.fronts[region], id, writ)
		if err == nil {
			w.book.put(id, acked{told, region, token, began})
			w.note(region, 0, "")
			continue
		}
		w.note("", status, err.Error())
		if !w.zombie {
			writ = ""
		}
	}
}

func (w *orderWriter) note(region string, status int, problem string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case region != "":
		w.count[region]++
	case status != 0:
		w.refused++
		w.lastStop, w.last = status, problem
	default:
		w.last = problem
	}
}

// tally is how many rows were acknowledged in a region, and how many refused anywhere.
func (w *orderWriter) tally(region string) (acknowledged, refused int, last string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[region], w.refused, fmt.Sprintf("%d %s", w.lastStop, w.last)
}

// obtain asks for the writ of the group's tenure.
func (w *orderWriter) obtain(ctx context.Context) (writ, region string, token uint64, err error) {
	err = errors.New("no node")
	for _, conn := range w.conns {
		writ, region, token, err = obtainFrom(ctx, conn)
		if err == nil {
			return writ, region, token, nil
		}
	}
	return "", "", 0, err
}

func obtainFrom(ctx context.Context, conn *grpc.ClientConn) (writ, region string, token uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, writerLimit)
	defer cancel()
	group, err := writv1.NewRegionServiceClient(conn).GetGroup(ctx, &writv1.GetGroupRequest{Name: ordersGroup})
	if err != nil {
		return "", "", 0, err
	}
	if group.GetPrimary() == "" {
		return "", "", 0, errors.New("nobody has the tenure")
	}
	issued, err := writv1.NewFenceServiceClient(conn).IssueWrit(ctx, &writv1.IssueWritRequest{Resource: ordersGroup, Token: group.GetToken()})
	return issued.GetWrit(), group.GetPrimary(), group.GetToken(), err
}

// send writes one row. An error with a status of 0 leaves open whether it was written.
func (w *orderWriter) send(ctx context.Context, front, id, writ string) (told receipt, status int, err error) {
	body, err := json.Marshal(order{id})
	if err != nil {
		return told, 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, front+"/orders", bytes.NewReader(body))
	if err != nil {
		return told, 0, err
	}
	request.Header.Set(fence.HeaderWrit, writ)
	response, err := w.http.Do(request)
	if err != nil {
		return told, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return told, 0, err
	}
	if response.StatusCode != http.StatusOK {
		return told, response.StatusCode, fmt.Errorf("%d: %s", response.StatusCode, bytes.TrimSpace(data))
	}
	return told, 0, json.Unmarshal(data, &told)
}
