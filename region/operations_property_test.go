package region

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// testKey makes the key of that number, always the same.
func testKey(n int) ssh.Signer {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(n), 7
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		panic(err)
	}
	return s
}

func publicText(s ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

// The people of these tests: ann has two keys, dan is no approver.
var (
	annKey, annOther, bobKey, cydKey, danKey = testKey(1), testKey(2), testKey(3), testKey(4), testKey(5)
	keyOwners                                = map[ssh.Signer]string{annKey: "ann", annOther: "ann", bobKey: "bob", cydKey: "cyd"}
	allKeys                                  = []ssh.Signer{annKey, annOther, bobKey, cydKey, danKey}
)

func threePeople() *writv1.ApproverSet {
	person := func(name string, roles []string, keys ...ssh.Signer) *writv1.Approver {
		a := &writv1.Approver{Name: name, Roles: roles, Principals: []string{name + "@laptop"}}
		for _, k := range keys {
			a.Keys = append(a.Keys, &writv1.ApproverKey{PublicKey: publicText(k)})
		}
		return a
	}
	return &writv1.ApproverSet{
		Approvers: []*writv1.Approver{person("ann", []string{"sre"}, annKey, annOther), person("bob", []string{"dba"}, bobKey), person("cyd", []string{"dba", "sre"}, cydKey)},
		Rule:      &writv1.ApprovalRule{People: 2},
	}
}

// plainSpec is a group of which only the spec matters.
func plainSpec() *writv1.GroupSpec {
	return &writv1.GroupSpec{Name: "bills", Regions: []*writv1.GroupRegion{
		{Name: "eu", Role: writv1.RegionRole_REGION_ROLE_PRIMARY}, {Name: "us", Role: writv1.RegionRole_REGION_ROLE_STANDBY},
	}}
}

// newBills is a world with that group, whose changes need one person of each role.
func newBills(t testing.TB) *world {
	w := newWorld(t)
	w.config.Approvers = threePeople()
	w.load()
	spec := plainSpec()
	spec.Approvals = &writv1.GroupApprovals{Change: &writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{{Role: "dba", People: 1}, {Role: "sre", People: 1}}}}
	w.must("ops", &writv1.ApplyGroupRequest{Spec: spec})
	w.settle()
	if g := w.groups["bills"]; g.GetState() != writv1.GroupState_GROUP_STATE_STEADY {
		t.Fatalf("the group is %v", g)
	}
	return w
}

func signedBy(t testing.TB, k ssh.Signer, namespace string, document []byte) string {
	armored, err := approval.Sign(k, namespace, document)
	if err != nil {
		t.Fatal(err)
	}
	return armored
}

// s8 judges operations from outside: what was signed by whom, and what has been executed.
type s8 struct {
	*world
	t *rapid.T
	// keys are those that signatures were handed in of and taken, by operation; withdrawn the people.
	keys      map[string][]ssh.Signer
	withdrawn map[string]map[string]bool
	made      map[string]made
	executed  map[string]int
	counted   int // of notes
	writers   int
}

type made struct {
	kind      writv1.OperationKind
	epoch     uint32
	policy    uint64
	version   uint64 // of the group
	expires   time.Time
	requester string
	says      string
}

// enough says whether the operation may be executed at this moment.
func (s *s8) enough(id string) bool {
	o := s.made[id]
	if s.moment().Wall.Compare(o.expires) >= 0 || o.policy != s.approvers.Version || o.epoch != uint32(s.config.Epoch) || s.executed[id] > 0 {
		return false
	}
	people, roles := map[string]bool{}, map[string]bool{}
	for _, k := range s.keys[id] {
		if s.withdrawn[id][keyOwners[k]] || !s.good(k) {
			continue
		}
		people[keyOwners[k]] = true
		for _, a := range s.approvers.Approvers {
			for _, role := range a.Roles {
				roles[role] = roles[role] || a.Name == keyOwners[k]
			}
		}
	}
	if o.kind == writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE && (!roles["dba"] || !roles["sre"]) {
		return false
	}
	return len(people) >= 2
}

// good: the key counts now.
func (s *s8) good(k ssh.Signer) bool {
	for _, a := range s.approvers.Approvers {
		for _, known := range a.Keys {
			if strings.HasPrefix(known.PublicKey, publicText(k)) {
				return !known.Revoked && (known.ExpiresAt == nil || s.moment().Wall.Before(known.ExpiresAt.AsTime()))
			}
		}
	}
	return false
}

func (s *s8) remember(op *writv1.Operation, version uint64, says string) {
	if _, known := s.made[op.Id]; known || !strings.Contains(string(op.Document), says) {
		s.t.Fatalf("%s is made again, or its document does not say %q: %s", op.Id, says, op.Document)
	}
	if approval.Digest(op.Document) != op.Digest {
		s.t.Fatalf("%s has the digest of something else", op.Id)
	}
	s.made[op.Id] = made{op.Kind, uint32(s.config.Epoch), s.approvers.Version, version, op.ExpiresAt.AsTime(), op.Requester, says}
	s.withdrawn[op.Id] = map[string]bool{}
}

func (s *s8) proposeChange(requester string) {
	spec := proto.CloneOf(s.groups["bills"].Spec)
	s.writers++
	writer := fmt.Sprintf("writer-%d", s.writers)
	spec.Regions[0].Writers = append(spec.Regions[0].Writers, writer)
	answer, err := s.ask(requester, &writv1.ApplyGroupRequest{Spec: spec, Reason: "more"})
	if err != nil {
		if err.Reason != lease.ReasonLimit {
			s.t.Fatal(err)
		}
		return
	}
	op := answer.(*writv1.ApplyGroupResponse).Operation
	if op == nil {
		s.t.Fatal("a writer was added without asking anybody")
	}
	s.remember(op, s.groups["bills"].Version, writer)
}

func (s *s8) proposeSet(requester string, key int, how string) {
	set := proto.CloneOf(s.approvers)
	set.Version = 0
	k := set.Approvers[key%3].Keys[0]
	switch how {
	case "revoke":
		k.Revoked = !k.Revoked
	case "expire":
		k.ExpiresAt = timestamppb.New(s.moment().Wall.Add(20 * time.Minute))
	default:
		set.Rule.ValidFor = durationpb.New(approval.Validity(set.Rule) + time.Minute)
	}
	answer, err := s.ask(requester, &writv1.ChangeApproversRequest{Set: set, Reason: how})
	if err != nil {
		return
	}
	s.remember(answer.(*writv1.Operation), 0, fmt.Sprintf(`"replaces":"%d"`, s.approvers.Version))
}

func (s *s8) handIn(id string, k ssh.Signer, spoil string) {
	document, namespace := s.operations[id].GetDocument(), approval.Namespace
	switch spoil {
	case "namespace":
		namespace = "file"
	case "document":
		document = append([]byte(" "), document...)
	}
	_, err := s.ask("cli", &writv1.ApproveRequest{Id: id, Signature: signedBy(s.world.t, k, namespace, document)})
	switch {
	case err == nil && (spoil != "" || keyOwners[k] == "" || !s.good(k) || s.withdrawn[id][keyOwners[k]]):
		s.t.Fatalf("a signature of %s over %s was taken that is bad (%q)", keyOwners[k], id, spoil)
	case err == nil:
		s.keys[id] = append(s.keys[id], k)
	}
}

// execute asks for it, and holds the answer against what the model says.
func (s *s8) execute(id string) {
	may, before := s.enough(id), s.executed[id]
	o := s.made[id]
	stale := o.kind == writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE && o.version != s.groups["bills"].Version
	answer, err := s.ask("ops", &writv1.ExecuteOperationRequest{Id: id})
	s.count()
	switch {
	case s.executed[id] > before && (!may || stale):
		s.t.Fatalf("%s was executed without enough signatures: %v", id, s.operations[id])
	case s.executed[id] > 1:
		s.t.Fatalf("%s was executed %d times", id, s.executed[id])
	case s.executed[id] == before && may && !stale && o.kind == writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE:
		s.t.Fatalf("%s was not executed: %v", id, err)
	case before == 1 && (err != nil || answer.(*writv1.Operation).State != writv1.OperationState_OPERATION_STATE_EXECUTED):
		s.t.Fatalf("%s was asked for again: %v", id, err)
	case s.executed[id] > before && o.kind == writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE && !strings.Contains(s.groups["bills"].String(), o.says):
		s.t.Fatalf("%s did something else than what was signed", id)
	}
}

// count takes in what has been executed, as the audit log has it.
func (s *s8) count() {
	for _, n := range s.notes[s.counted:] {
		if n.Action == "operation.execute" {
			s.executed[n.Target]++
		}
	}
	s.counted = len(s.notes)
}

func TestOperationsKeepS8(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := &s8{world: newBills(t), t: r, keys: map[string][]ssh.Signer{}, withdrawn: map[string]map[string]bool{}, made: map[string]made{}, executed: map[string]int{}}
		ids := []string{}
		known := func() string { return ids[rapid.IntRange(max(0, len(ids)-3), len(ids)-1).Draw(r, "which")] }
		for range rapid.IntRange(5, 40).Draw(r, "steps") {
			what := rapid.SampledFrom([]string{"change", "set", "sign", "sign", "sign", "sign", "spoiled", "withdraw", "execute", "execute", "wait", "takeover", "rebuild"}).Draw(r, "what")
			if len(ids) == 0 {
				what = "change"
			}
			requester := rapid.SampledFrom([]string{"ops", "ann@laptop", "bob@laptop"}).Draw(r, "requester")
			switch what {
			case "change":
				s.proposeChange(requester)
			case "set":
				s.proposeSet(requester, rapid.IntRange(0, 2).Draw(r, "person"), rapid.SampledFrom([]string{"revoke", "expire", "longer"}).Draw(r, "how"))
			case "sign":
				s.handIn(known(), rapid.SampledFrom(allKeys).Draw(r, "key"), "")
			case "spoiled":
				s.handIn(known(), rapid.SampledFrom(allKeys).Draw(r, "key"), rapid.SampledFrom([]string{"namespace", "document"}).Draw(r, "spoil"))
			case "withdraw":
				id, person := known(), rapid.SampledFrom([]string{"ann", "bob", "cyd"}).Draw(r, "person")
				if _, err := s.ask("cli", &writv1.WithdrawRequest{Id: id, Approver: person}); err == nil {
					s.withdrawn[id][person] = true
				}
			case "execute":
				s.execute(known())
			case "wait":
				s.now = s.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 25 * time.Minute, time.Hour}).Draw(r, "wait"))
			case "takeover":
				s.takeover()
			case "rebuild":
				s.rebuild()
			}
			ids = ids[:0]
			for id := range s.made {
				ids = append(ids, id)
			}
			sortIDs(ids)
		}
		for _, id := range ids {
			s.execute(id)
		}
	})
}

func sortIDs(ids []string) {
	for i := range ids {
		for j := i; j > 0 && compareIDs(ids[j], ids[j-1]) < 0; j-- {
			ids[j], ids[j-1] = ids[j-1], ids[j]
		}
	}
}
