package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/api/server"
	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// tinyQuorum grants everything, which is not what a quorum is for. The embedded interface stands for the rest.
type tinyQuorum struct{ server.Quorum }

func (tinyQuorum) Coordinator() (quorum.Node, bool, <-chan struct{}) {
	return quorum.Node{Name: "a"}, true, nil
}
func (tinyQuorum) Nodes() []quorum.Node  { return nil }
func (tinyQuorum) Status() quorum.Status { return quorum.Status{Node: "a"} }

func (tinyQuorum) Get(_ context.Context, query quorum.GetQuery) (lease.Info, error) {
	return lease.Info{Resource: query.Resource, State: lease.Free}, nil
}

func Example() {
	dir, err := os.MkdirTemp("", "writ")
	check(err)
	defer func() { _ = os.RemoveAll(dir) }()

	// Certificates for a node and for an application, as writ dev makes them.
	ca, err := identity.NewCA(dir)
	check(err)
	local := []net.IP{net.IPv4(127, 0, 0, 1)}
	nodeFiles, err := ca.Issue(identity.Subject{Name: "node", SPIFFE: "spiffe://example/node/a", IPs: local})
	check(err)
	appFiles, err := ca.Issue(identity.Subject{Name: "app", SPIFFE: "spiffe://example/app/billing"})
	check(err)
	node, err := identity.Open(nodeFiles, nil)
	check(err)
	app, err := identity.Open(appFiles, nil)
	check(err)

	grants, err := policy.Parse([]byte(`grants: [{principals: ["spiffe://example/app/*"], prefix: "billing/", verbs: [read]}]`))
	check(err)
	s, err := server.New(tinyQuorum{}, server.Config{Identity: node, Policy: grants})
	check(err)
	api, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	web, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	served := make(chan error)
	go func() { served <- s.Serve(api, web) }()

	conn, err := grpc.NewClient(api.Addr().String(), grpc.WithTransportCredentials(app.ClientCredentials()))
	check(err)
	leases := writv1.NewLeaseServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := leases.Get(ctx, &writv1.GetRequest{Resource: "billing/nightly"})
	check(err)
	fmt.Println(got.GetLease().GetState())
	_, err = leases.Get(ctx, &writv1.GetRequest{Resource: "payroll"})
	fmt.Println(lease.ReasonOf(err))
	check(conn.Close())

	transport := &http.Transport{DialTLSContext: app.DialTLS}
	resp, err := (&http.Client{Transport: transport}).Get("https://" + web.Addr().String() + "/readyz")
	check(err)
	_, err = io.Copy(os.Stdout, resp.Body)
	check(err)
	check(resp.Body.Close())
	transport.CloseIdleConnections()

	check(s.GracefulStop(ctx))
	check(<-served)
	// Output:
	// LEASE_STATE_FREE
	// DENIED
	// {"ready":true}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
