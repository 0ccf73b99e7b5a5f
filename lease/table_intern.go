//writ:core

package lease

// interner shares equal strings and holders: a process that holds 100,000 leases sends its name with each.
type interner struct {
	strings [256]string
	holders [256]*Holder
}

func (in *interner) get(s string) string {
	if s == "" {
		return ""
	}
	slot := &in.strings[hash(firstHash, s)%uint32(len(in.strings))]
	if *slot != s {
		*slot = s
	}
	return *slot
}

func (in *interner) holder(p Principal, instance, region string) *Holder {
	h := hash(hash(hash(firstHash, string(p)), instance), region)
	slot := &in.holders[h%uint32(len(in.holders))]
	if found := *slot; found == nil || found.Principal != p || found.Instance != instance || found.Region != region {
		*slot = &Holder{Principal: Principal(in.get(string(p))), Instance: in.get(instance), Region: in.get(region)}
	}
	return *slot
}

const firstHash = 2166136261

// hash is FNV-1a.
func hash(h uint32, s string) uint32 {
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
