package guard_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

const (
	guardLease = 30 * time.Second
	issuer     = "quorum.example"
)

func tok(sequence uint64) fence.Token {
	t, err := fence.NewToken(1, sequence)
	if err != nil {
		panic(err)
	}
	return t
}

// quorum plays the quorum's side of the protocol as its contract says. Its nodes share it.
type quorum struct {
	writv1.UnimplementedFenceServiceServer

	mu       sync.Mutex
	base     fence.Token
	floors   map[string]fence.Token
	rules    *writv1.GuardingRecord
	jwks     string
	issuer   string
	grants   []*writv1.GuardGrant
	raises   map[string]fence.Token // told and not acknowledged
	sessions []*session
	silent   bool // takes everything in and answers nothing
	out      bool // has given the guard up: contacts are refused until it enrols

	approvers []byte // who may open guards without it

	enrols   []*writv1.GuardEnrol
	contacts []time.Time
	acks     []*writv1.GuardAck
	leaves   int
	probed   []*writv1.GuardProbed
	pages    []*writv1.GuardRequest // of floors
	onAck    func(*writv1.GuardAck) // may be nil
}

type session struct {
	mu     sync.Mutex
	ended  chan struct{} // closed to end it
	stream grpc.BidiStreamingServer[writv1.GuardRequest, writv1.GuardResponse]
}

func (s *session) say(m *writv1.GuardResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.stream.Send(m) // a guard that is gone asks again
}

func newQuorum() *quorum {
	return &quorum{
		base: tok(1), floors: make(map[string]fence.Token), raises: make(map[string]fence.Token), issuer: issuer,
		rules: &writv1.GuardingRecord{Version: 1, Rules: []*writv1.GuardingRule{{
			Prefix: "", Isolation: writv1.Isolation_ISOLATION_CLOSE,
		}, {
			Prefix: "open/", Isolation: writv1.Isolation_ISOLATION_OPEN,
		}}},
	}
}

func (q *quorum) Guard(stream grpc.BidiStreamingServer[writv1.GuardRequest, writv1.GuardResponse]) error {
	s := &session{stream: stream, ended: make(chan struct{})}
	q.mu.Lock()
	q.sessions = append(q.sessions, s)
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.sessions = slices.DeleteFunc(q.sessions, func(o *session) bool { return o == s })
	}()
	received := make(chan error, 1)
	go func() { // ends with the stream
		for {
			r, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			for _, m := range q.answer(r) {
				s.say(m)
			}
		}
	}()
	select {
	case err := <-received:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-s.ended:
		return nil
	}
}

// connected says whether a stream is there that could be dropped.
func (q *quorum) connected() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.sessions) > 0
}

// drop ends every stream.
func (q *quorum) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.sessions {
		close(s.ended)
	}
	q.sessions = nil
}

// answer returns what is said to a request, first what answers it.
func (q *quorum) answer(r *writv1.GuardRequest) []*writv1.GuardResponse {
	q.mu.Lock()
	defer q.mu.Unlock()
	noted := &writv1.GuardResponse{Id: r.GetId(), Say: &writv1.GuardResponse_Noted{Noted: &writv1.GuardNoted{}}}
	if probed := r.GetProbed(); probed != nil {
		q.probed = append(q.probed, probed)
		return nil
	}
	if r.GetFloors() != nil {
		q.pages = append(q.pages, r)
		return nil
	}
	if q.silent {
		return nil
	}
	switch {
	case r.GetEnrol() != nil:
		return q.enrol(r)
	case r.GetContact() != nil:
		if q.out {
			return []*writv1.GuardResponse{{Id: r.GetId(), Say: &writv1.GuardResponse_Error{Error: refusal("EXPIRED")}}}
		}
		q.contacts = append(q.contacts, time.Now())
		c := &writv1.GuardContacted{Lease: durationpb.New(guardLease), Raises: floorList(q.raises)}
		for _, name := range r.GetContact().GetDoubts() {
			c.Floors = append(c.Floors, &writv1.GuardFloor{Resource: name, Token: uint64(q.floors[name])})
		}
		if r.GetContact().GetRulesVersion() != q.rules.GetVersion() {
			c.Rules = q.rules
		}
		return []*writv1.GuardResponse{{Id: r.GetId(), Say: &writv1.GuardResponse_Contacted{Contacted: c}}}
	case r.GetAcks() != nil:
		for _, ack := range r.GetAcks().GetAcks() {
			q.acks = append(q.acks, ack)
			if q.onAck != nil {
				q.onAck(ack)
			}
			if fence.Token(ack.GetToken()) >= q.raises[ack.GetResource()] {
				delete(q.raises, ack.GetResource())
			}
		}
	case r.GetLeave() != nil:
		q.leaves++
	}
	return []*writv1.GuardResponse{noted}
}

func (q *quorum) enrol(r *writv1.GuardRequest) []*writv1.GuardResponse {
	q.enrols = append(q.enrols, r.GetEnrol())
	q.out = false
	first := &writv1.GuardEnrolled{More: true, Issuer: q.issuer}
	last := &writv1.GuardEnrolled{
		Lease: durationpb.New(guardLease), Base: uint64(q.base), Floors: floorList(q.floors), Rules: q.rules,
		Incarnation: "i1", Epoch: 1, Approvers: q.approvers,
	}
	say := []*writv1.GuardResponse{
		{Id: r.GetId(), Say: &writv1.GuardResponse_Enrolled{Enrolled: first}},
		{Id: r.GetId(), Say: &writv1.GuardResponse_Enrolled{Enrolled: last}},
	}
	if q.jwks != "" {
		say = append(say, &writv1.GuardResponse{Say: &writv1.GuardResponse_Jwks{Jwks: q.jwks}})
	}
	return append(say, &writv1.GuardResponse{Say: &writv1.GuardResponse_Grants{Grants: &writv1.GuardGrants{Grants: q.grants}}})
}

func refusal(reason string) *status.Status {
	detail, err := anypb.New(&errdetails.ErrorInfo{Reason: reason, Domain: "writ.dev"})
	if err != nil {
		panic(err)
	}
	return &status.Status{Code: int32(codes.FailedPrecondition), Message: reason, Details: []*anypb.Any{detail}}
}

func floorList(m map[string]fence.Token) []*writv1.GuardFloor {
	var list []*writv1.GuardFloor
	for _, resource := range slices.Sorted(maps.Keys(m)) {
		list = append(list, &writv1.GuardFloor{Resource: resource, Token: uint64(m[resource])})
	}
	return list
}

// tell says something to every guard that is connected.
func (q *quorum) tell(m *writv1.GuardResponse) {
	q.mu.Lock()
	sessions := slices.Clone(q.sessions)
	q.mu.Unlock()
	for _, s := range sessions {
		s.say(m)
	}
}

func (q *quorum) raise(resource string, token fence.Token) {
	q.mu.Lock()
	q.raises[resource], q.floors[resource] = token, token
	q.mu.Unlock()
	q.tell(&writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{
		Raises: floorList(map[string]fence.Token{resource: token}),
	}}})
}

// publish tells other keys.
func (q *quorum) publish(keys ...ed25519.PublicKey) {
	set, err := fence.NewKeySet(keys...)
	if err != nil {
		panic(err)
	}
	jwks, err := set.MarshalJWKS()
	if err != nil {
		panic(err)
	}
	q.mu.Lock()
	q.jwks = string(jwks)
	q.mu.Unlock()
	q.tell(&writv1.GuardResponse{Say: &writv1.GuardResponse_Jwks{Jwks: string(jwks)}})
}

func (q *quorum) do(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// acked returns the newest acknowledgement for a resource.
func (q *quorum) acked(resource string) (token fence.Token, proof writv1.GuardProof) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, ack := range q.acks {
		if ack.GetResource() == resource {
			token, proof = fence.Token(ack.GetToken()), ack.GetProof()
		}
	}
	return token, proof
}

func (q *quorum) contactCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.contacts)
}

// network has the nodes by their addresses. A node that is down refuses.
type network struct {
	mu    sync.Mutex
	nodes map[string]*node
}

type node struct {
	listener *bufconn.Listener
	server   *grpc.Server
	serving  sync.WaitGroup
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	at := n.nodes[address]
	n.mu.Unlock()
	if at == nil {
		return nil, fmt.Errorf("%s is down", address)
	}
	return at.listener.DialContext(ctx)
}

func (n *network) start(address string, q *quorum) {
	at := &node{listener: bufconn.Listen(1 << 20), server: grpc.NewServer(grpc.KeepaliveEnforcementPolicy(
		keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true},
	))}
	writv1.RegisterFenceServiceServer(at.server, q)
	at.serving.Go(func() { _ = at.server.Serve(at.listener) })
	n.mu.Lock()
	n.nodes[address] = at
	n.mu.Unlock()
}

// stop ends a node as a crash would.
func (n *network) stop(address string) {
	n.mu.Lock()
	at := n.nodes[address]
	delete(n.nodes, address)
	n.mu.Unlock()
	if at != nil {
		at.server.Stop()
		_ = at.listener.Close()
		at.serving.Wait()
	}
}

func (n *network) stopAll() {
	n.mu.Lock()
	addresses := slices.Collect(maps.Keys(n.nodes))
	n.mu.Unlock()
	for _, address := range addresses {
		n.stop(address)
	}
}
