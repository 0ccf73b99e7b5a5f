// Package cgroup leaves a process a small share of a processor for a while.
//
// # What it promises
//
//   - [Throttle] puts a process into a control group of its own, which the kernel lets run for a share of each tenth of a second.
//     It has all the processors again after [Group.Release], and the group is gone.
//   - What a program that crashed has left behind is removed by the next [Throttle].
//
// # What it does not promise
//
// It needs Linux, root and the cpu controller, of either version of control groups: see [Supported]. A process that is
// throttled does not stand still: it runs a little in each tenth of a second, whatever it has to do.
package cgroup
