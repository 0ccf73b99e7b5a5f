package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

func planned(t *testing.T, change func(*approval.Document), body string) []byte {
	t.Helper()
	d := approval.Document{
		Format: approval.Format, Cluster: "prod", Incarnation: "5f0c", Epoch: 3, ID: "billing-3.7", Kind: approval.KindPromotion, Group: "billing",
		Requester: "spiffe://prod/sre/ada", Created: instant.Add(-90 * time.Second), Expires: instant.Add(time.Hour - 90*time.Second),
		PolicyVersion: 12, Body: json.RawMessage(body),
	}
	if change != nil {
		change(&d)
	}
	doc, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

const failoverBody = `{"from":"east","to":"west","mode":"failover","expected_token":"844424930132007","group_version":"4","automatic":false,
	"reason":"east is under water","loss_cap":{"bytes":"65536","time":"30s"},"evidence":{"lag":"unknown","estimated_loss":{},
	"observed":[{"observer":"north","about":"east","what":"unreachable","since":"2026-03-14T02:58:00Z"}],
	"positions":{"from":"unknown","to":{"log":"7234/1","bytes":"50331976","text":"0/3000148"}}}}`

func TestShowDocument(t *testing.T) {
	for _, test := range []struct {
		golden string
		change func(*approval.Document)
		body   string
	}{
		{"failover", nil, failoverBody},
		{"partly-known", nil, `{"loss_cap":null,"expected_token":"12","evidence":{"lag":"1s","more":[1,"x",null,true,{},[]],"observed":[{"observer":"x"}],
			"estimated_loss":{"bytes":"0"}},"supersedes":"billing-3.6","requester":"somebody else","a.b":{"c":"d"}}`},
		{"hostile", func(d *approval.Document) {
			d.Group, d.Kind, d.Expires = "", "approvers-change", instant.Add(-time.Second)
		}, `{"a\u001b[2J":"x\u001b[1A\u202e","b":"two  spaces","c":"\nfrom  west","d":"","e":" x","f":"(none)","g":"\"q","reason":"\rto  east\u0000"}`},
	} {
		var page bytes.Buffer
		a := &app{stdout: &page, now: func() time.Time { return instant }}
		if _, err := a.showDocument(&page, planned(t, test.change, test.body)); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "document-"+test.golden+".txt")
		if os.Getenv("WRIT_REWRITE") == "1" {
			if err := os.WriteFile(golden, page.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if page.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s\nif it is right, run the test with WRIT_REWRITE=1", test.golden, page.String(), want)
		}
	}
}

func TestShowDocumentRefuses(t *testing.T) {
	var page bytes.Buffer
	a := &app{stdout: &page, now: func() time.Time { return instant }}
	doc := planned(t, nil, failoverBody)
	for _, bad := range [][]byte{nil, []byte("{}"), append(doc, '\n'), bytes.Replace(doc, []byte("west"), []byte(`w\u0065st`), 1)} {
		if _, err := a.showDocument(&page, bad); err == nil || page.Len() > 0 {
			t.Errorf("%.60q is shown as %q, %v", bad, page.String(), err)
		}
	}
}

func TestSignDocument(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("WRIT_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	key := filepath.Join(t.TempDir(), "id")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	other := key + "2"
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	second, err := os.ReadFile(other + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	set, err := approval.NewSet(&writv1.ApproverSet{Rule: &writv1.ApprovalRule{People: 2}, Approvers: []*writv1.Approver{
		{Name: "ada", Keys: []*writv1.ApproverKey{{PublicKey: string(public)}}}, {Name: "bob", Keys: []*writv1.ApproverKey{{PublicKey: string(second)}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{now: func() time.Time { return instant }}
	doc := planned(t, nil, failoverBody)
	armored, err := a.signDocument(t.Context(), doc, signOptions{key: key})
	if err != nil {
		t.Fatal(err)
	}
	if who, err := set.Verify(approval.Namespace, doc, armored, instant); err != nil || who.Approver != "ada" {
		t.Errorf("%v, %v", who, err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	for want, o := range map[string]signOptions{
		"INVALID: --key is missing":                            {},
		"INVALID: --key is given as well as":                   {key: key, agent: true},
		"INVALID: SSH_AUTH_SOCK is not set":                    {key: key + ".pub"},
		"INVALID: SSH_AUTH_SOCK is not set: there is no ssh-a": {fingerprint: "SHA256:x"},
		"no such file": {key: key + "x"},
	} {
		if got, err := a.signDocument(t.Context(), doc, o); err == nil || !strings.Contains(err.Error(), want) || got != "" {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}
