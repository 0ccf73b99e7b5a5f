package quorum

// What tests from outside share with those from inside.
var (
	RegionPeople = regionPeople
	RegionSpec   = regionSpec
)
