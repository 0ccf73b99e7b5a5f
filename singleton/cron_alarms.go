package singleton

import "time"

// cronAlarm is when to wake a job.
type cronAlarm struct {
	job   *cronJob
	at    time.Time // of day
	index int       // in the heap, -1 if it is not set
}

// cronAlarms is a heap of alarms, the earliest on top.
type cronAlarms []*cronAlarm

func (a cronAlarms) Len() int           { return len(a) }
func (a cronAlarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a cronAlarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

// Push is heap.Interface's.
func (a *cronAlarms) Push(x any) {
	alarm := x.(*cronAlarm)
	alarm.index = len(*a)
	*a = append(*a, alarm)
}

// Pop is heap.Interface's.
func (a *cronAlarms) Pop() any {
	last := len(*a) - 1
	alarm := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	alarm.index = -1
	return alarm
}
