package pgfence

// What tests of the outside have to know of the inside.
var (
	Presenting  = presenting
	SettingName = settingName
	LockKey     = lockKey
	Bodies      = bodies
)
