package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"

	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

const patience = pace.Patience

// nodeOf is a node that offers one task until it has its result. The first calls are refused, as while there is no quorum.
type nodeOf struct {
	writv1.UnimplementedRegionServiceServer
	writv1.UnimplementedClusterServiceServer

	mu      sync.Mutex
	refuse  int
	results chan *writv1.TaskResult
	reports chan *writv1.AgentPollRequest
}

func (n *nodeOf) Status(context.Context, *writv1.StatusRequest) (*writv1.StatusResponse, error) {
	return &writv1.StatusResponse{}, nil
}

func (n *nodeOf) AgentPoll(ctx context.Context, ask *writv1.AgentPollRequest) (*writv1.AgentPollResponse, error) {
	n.mu.Lock()
	n.refuse--
	refuse := n.refuse >= 0
	n.mu.Unlock()
	if refuse {
		return nil, status.Error(codes.Unavailable, "no quorum")
	}
	select {
	case n.reports <- ask:
	default:
	}
	for _, r := range ask.GetResults() {
		select {
		case n.results <- r:
		default:
		}
	}
	if len(ask.GetResults()) > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(ask.GetWait().AsDuration()):
		}
		return &writv1.AgentPollResponse{}, nil
	}
	return &writv1.AgentPollResponse{Tasks: []*writv1.Task{{Group: "orders", Promotion: "orders-1.1", Epoch: 1, Term: 1, Step: 1, Kind: writv1.HookKind_HOOK_KIND_DRAIN}}}, nil
}

// A whole agent, from its file to a node and back.
func TestAnAgentRuns(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := &nodeOf{refuse: 3, results: make(chan *writv1.TaskResult, 1), reports: make(chan *writv1.AgentPollRequest, 1)}
	server := grpc.NewServer()
	writv1.RegisterRegionServiceServer(server, node)
	writv1.RegisterClusterServiceServer(server, node)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	path := filepath.Join(t.TempDir(), "agent.yaml")
	text := fmt.Sprintf(`
name: agent-eu-1
region: eu
data_dir: data
interval: 100ms
quorum: {endpoints: ["%s"], insecure: true}
admin: {listen: "127.0.0.1:0"}
groups:
  - name: orders
    probe: {command: [/bin/sh, -c, 'echo "{\"writable\":true}"']}
    hooks: [{kind: drain, command: [/bin/echo, drained]}]
`, listener.Addr())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, config, "test", hclog.NewNullLogger()) }()
	select {
	case r := <-node.results:
		if r.GetOutcome() != writv1.HookOutcome_HOOK_OUTCOME_DONE || r.GetOutput() != "drained" {
			t.Errorf("result: %v", r)
		}
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("no result")
	}
	if ask := <-node.reports; ask.GetAgent() != "agent-eu-1" || ask.GetRegion() != "eu" || ask.GetSoftwareVersion() != "test" || len(ask.GetReports()) != 1 {
		t.Errorf("poll: %v", ask)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOperatorsAreAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	c, err := load(t, strings.Replace(good, "region: eu", "region: eu\nadmin: {listen: \""+address+"\"}", 1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c, "test", hclog.NewNullLogger()) }()
	deadline := time.Now().Add(patience)
	for {
		response, err := http.Get("http://" + address + "/metrics")
		if err == nil {
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if !strings.Contains(string(body), `writ_agent_health{group="orders"}`) {
				t.Errorf("metrics: %s", body)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
