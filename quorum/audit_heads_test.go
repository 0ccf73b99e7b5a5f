package quorum

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
)

// chained is an image with n audit records, and their heads.
func chained(t *testing.T, n int) (*Image, []audit.Head) {
	t.Helper()
	heads := []audit.Head{{}}
	var entries []Entry
	for range n {
		stored, next, err := audit.Append(heads[len(heads)-1], audit.Record{Actor: "a", Action: "grant", Target: "x", At: time.Unix(1, 0)})
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, next)
		entries = append(entries, Entry{Key: AuditKey(next.Sequence), Value: stored, Revision: 1})
	}
	last := heads[len(heads)-1]
	id := &writv1.IdentityRecord{Cluster: "test", Incarnation: "i1", AuditSequence: last.Sequence, AuditHash: last.Hash}
	entries = append(entries, Entry{Key: KeyIdentity, Value: marshal(id), Revision: 1})
	image := NewImage()
	image.Reset(entries, 1)
	return image, heads
}

// announce lets a node sign a head, changed by edit before it is announced.
func announce(t *testing.T, image *Image, said audit.SignedHead, edit func(*writv1.NodeRecord)) {
	t.Helper()
	signer, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := said.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := keys.MarshalJWKS()
	if err != nil {
		t.Fatal(err)
	}
	n := &writv1.NodeRecord{
		Name: "n1", Jwks: string(jwks), AuditHead: &writv1.AuditHead{Node: "n1", Sequence: said.Head.Sequence, Hash: said.Head.Hash, Signed: signed},
	}
	if edit != nil {
		edit(n)
	}
	value, err := proto.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	image.Apply(Change{Revision: image.Revision() + 1, Entries: []Entry{{Key: NodeKey("n1"), Value: value}}})
}

func TestHeadsThatContradictTheChainAreAlarms(t *testing.T) {
	_, one := chained(t, 1)
	_, other, err := audit.Append(one[1], audit.Record{Actor: "b", Action: "grant", Target: "y"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		said  func(heads []audit.Head) audit.SignedHead
		edit  func(*writv1.NodeRecord)
		alarm bool
	}{
		"the newest":                  {said: func(h []audit.Head) audit.SignedHead { return audit.SignedHead{Head: h[4]} }},
		"an old one":                  {said: func(h []audit.Head) audit.SignedHead { return audit.SignedHead{Head: h[1]} }},
		"another one":                 {said: func([]audit.Head) audit.SignedHead { return audit.SignedHead{Head: other} }, alarm: true},
		"of a history that has ended": {said: func([]audit.Head) audit.SignedHead { return audit.SignedHead{Head: other, Incarnation: "i0"} }},
		"beyond the end": {said: func(h []audit.Head) audit.SignedHead {
			return audit.SignedHead{Head: audit.Head{Sequence: 5, Hash: h[4].Hash}}
		}, alarm: true},
		"of another node":    {said: func(h []audit.Head) audit.SignedHead { return audit.SignedHead{Head: h[4], Node: "n2"} }, alarm: true},
		"of another cluster": {said: func(h []audit.Head) audit.SignedHead { return audit.SignedHead{Head: h[4], Cluster: "prod"} }, alarm: true},
		"by another key": {said: func(h []audit.Head) audit.SignedHead { return audit.SignedHead{Head: h[4]} }, alarm: true,
			edit: func(n *writv1.NodeRecord) { n.Jwks = `{"keys":[]}` }},
		"not what is announced": {said: func(h []audit.Head) audit.SignedHead { return audit.SignedHead{Head: h[4]} }, alarm: true,
			edit: func(n *writv1.NodeRecord) { n.AuditHead.Sequence = 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			image, heads := chained(t, 4)
			said := c.said(heads)
			said.At = time.Unix(2, 0)
			if said.Node == "" {
				said.Node = "n1"
			}
			if said.Cluster == "" {
				said.Cluster = "test"
			}
			if said.Incarnation == "" {
				said.Incarnation = "i1"
			}
			announce(t, image, said, c.edit)
			got := auditHeadStatuses(image)
			if len(got) != 1 || (got[0].Alarm != "") != c.alarm {
				t.Errorf("%+v, want an alarm: %v", got, c.alarm)
			}
			covers := !c.alarm && said.Incarnation == "i1"
			if _, err := pruneAnchor(image, 1); (err == nil) != covers {
				t.Errorf("pruned behind it: %v", err)
			}
		})
	}
}

// A log that somebody has cut, or changed, is noticed by whoever signed it before.
func TestAChangedLogIsAnAlarm(t *testing.T) {
	for name, change := range map[string]func(image *Image, heads []audit.Head) []Entry{
		"changed": func(_ *Image, heads []audit.Head) []Entry {
			stored, _, err := audit.Append(heads[2], audit.Record{Actor: "nobody", Action: "grant", Target: "x"})
			if err != nil {
				t.Fatal(err)
			}
			return []Entry{{Key: AuditKey(3), Value: stored}}
		},
		"removed":    func(*Image, []audit.Head) []Entry { return []Entry{{Key: AuditKey(3)}} },
		"unreadable": func(*Image, []audit.Head) []Entry { return []Entry{{Key: AuditKey(3), Value: []byte("{}")}} },
	} {
		t.Run(name, func(t *testing.T) {
			image, heads := chained(t, 4)
			announce(t, image, audit.SignedHead{Node: "n1", Cluster: "test", Incarnation: "i1", Head: heads[3]}, nil)
			if got := auditHeadStatuses(image); got[0].Alarm != "" {
				t.Fatalf("before: %s", got[0].Alarm)
			}
			image.Apply(Change{Revision: 9, Entries: change(image, heads)})
			if got := auditHeadStatuses(image); got[0].Alarm == "" {
				t.Error("nobody notices")
			}
		})
	}
}
