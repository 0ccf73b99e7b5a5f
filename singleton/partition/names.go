//writ:core

package partition

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/writ-io/writ/lease"
)

// MaxPartitions is how many partitions a group may have.
const MaxPartitions = 100_000

// nameDigits are enough for the index of every partition.
const nameDigits = 5

// Names are those of a group's leases, all below the group's name:
//
//	GROUP/group          its checkpoint is the group's document
//	GROUP/member/ID      held by a live member; its metadata is the member's document
//	GROUP/p/00017        held by whoever works on partition 17; its checkpoint is the user's
type Names struct{ prefix string }

// NewNames makes the names of a group. Errors: INVALID for a group that is not a resource's name, or so long that no
// partition or member could be named below it.
func NewNames(group string) (Names, error) {
	const fix = "use printable UTF-8 in non-empty segments, such as orders/shards, and leave room for names below it"
	if _, err := lease.ParseResource(group); err != nil {
		return Names{}, lease.Invalid("group", problem(err), fix)
	}
	n := Names{prefix: group + "/"}
	if most := lease.MaxResourceBytes - len("/member/") - lease.MaxInstanceBytes; len(group) > most {
		return Names{}, lease.Invalid("group", fmt.Sprintf("is %d bytes long", len(group)), fmt.Sprintf("use at most %d", most))
	}
	return n, nil
}

// problem is what an error says about a field, without its name and how to fix it.
func problem(err error) string {
	if e, ok := err.(*lease.Error); ok { //nolint:errorlint // lease.ParseResource returns nothing else
		return e.Message
	}
	return err.Error()
}

// Prefix is what the names of all leases of the group begin with.
func (n Names) Prefix() string { return n.prefix }

// Group is the lease whose checkpoint says how many partitions there are.
func (n Names) Group() string { return n.prefix + "group" }

// MemberPrefix is what the names of members' leases begin with.
func (n Names) MemberPrefix() string { return n.prefix + "member/" }

// Member is the lease of a member. A slash in its ID, and an ID of dots, is written as % and two hexadecimal digits. Errors:
// INVALID for an ID that makes no name, or one that is too long.
func (n Names) Member(id string) (string, error) {
	name := n.MemberPrefix() + escape(id)
	if _, err := lease.ParseResource(name); err != nil {
		return "", lease.Invalid("instance", problem(err), "give this process a shorter, printable name in lease.Config.Instance, or the group a shorter one")
	}
	return name, nil
}

// Partition is the lease of a partition.
func (n Names) Partition(index int) string {
	return n.prefix + "p/" + fmt.Sprintf("%0*d", nameDigits, index)
}

// escape makes a segment of any text.
func escape(id string) string {
	if id == "." || id == ".." {
		return strings.ReplaceAll(id, ".", "%2E")
	}
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(id)
}

// member tells whether a name is that of a member's lease. Who it is stands in the lease itself.
func (n Names) member(name string) bool {
	id, ok := strings.CutPrefix(name, n.MemberPrefix())
	return ok && id != "" && !strings.Contains(id, "/")
}

// partition returns the index in the name of a partition's lease.
func (n Names) partition(name string) (index int, ok bool) {
	digits, ok := strings.CutPrefix(name, n.prefix+"p/")
	if !ok || len(digits) != nameDigits {
		return 0, false
	}
	index, err := strconv.Atoi(digits)
	return index, err == nil && index >= 0 && n.Partition(index) == name
}

// documentKind and documentVersion stand in every document, so that one can be told from what others have stored.
const (
	documentKind    = "consume"
	documentVersion = 1
)

// Group is what a group's members agree on, stored as a checkpoint.
type Group struct {
	// Partitions is how many there are: 1 to MaxPartitions.
	Partitions int
}

type groupDocument struct {
	Writ       string `json:"writ"`
	Version    int    `json:"v"`
	Partitions int    `json:"partitions"`
}

// CheckPartitions returns INVALID for a number of partitions that no group has.
func CheckPartitions(n int) error {
	if n < 1 || n > MaxPartitions {
		return lease.Invalid("partitions", fmt.Sprintf("is %d", n), fmt.Sprintf("use 1 to %d", MaxPartitions))
	}
	return nil
}

// Encode returns the document of a group.
func (g Group) Encode() ([]byte, error) {
	if err := CheckPartitions(g.Partitions); err != nil {
		return nil, err
	}
	return json.Marshal(groupDocument{documentKind, documentVersion, g.Partitions})
}

// ParseGroup reads a group's document. Errors: INVALID for what is not one, or is of a version that this program does not
// know.
func ParseGroup(data []byte) (Group, error) {
	var d groupDocument
	const fix = "use a name under which nothing else is stored"
	if err := json.Unmarshal(data, &d); err != nil || d.Writ != documentKind {
		return Group{}, lease.Invalid("group", "is the name of something that is not a group of consumers", fix)
	}
	if d.Version != documentVersion {
		return Group{}, lease.Invalid("group", fmt.Sprintf("has a document of version %d", d.Version), "use a newer program")
	}
	if err := CheckPartitions(d.Partitions); err != nil {
		return Group{}, lease.Invalid("group", fmt.Sprintf("has a document that says %d partitions", d.Partitions), fix)
	}
	return Group{Partitions: d.Partitions}, nil
}

// memberDocument is the metadata of a member's lease.
type memberDocument struct {
	Writ    string `json:"writ"`
	Version int    `json:"v"`
	Region  string `json:"region,omitempty"`
	Homes   string `json:"homes,omitempty"`
}

// digest names a list of homes: members whose lists differ must not compute targets by them.
func digest(homes []string) string {
	if homes == nil {
		return ""
	}
	h := fnv.New64a()
	for _, home := range homes {
		_, _ = h.Write([]byte(home))
		_, _ = h.Write([]byte{0})
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// Metadata is what the lease of a member says about it.
func Metadata(region string, homes []string) ([]byte, error) {
	return json.Marshal(memberDocument{Writ: documentKind, Version: documentVersion, Region: region, Homes: digest(homes)})
}

// parseMember reads the lease of a member. What cannot be read is a member that says nothing but what the lease does.
func parseMember(info *lease.Info) seenMember {
	m := seenMember{Member: Member{ID: info.Holder.Instance, Region: info.Holder.Region}}
	var d memberDocument
	if json.Unmarshal(info.Metadata, &d) == nil && d.Writ == documentKind {
		m.homes = d.Homes
		if d.Region != "" {
			m.Region = d.Region
		}
	}
	return m
}
