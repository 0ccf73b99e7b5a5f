// Package agent is what a region runs beside its data: it reports how the region does, and runs the hooks that a promotion
// asks for.
//
// # What it promises
//
// An [Agent] says what it sees from where it stands and nothing else: how its own data does, how far that has got, and
// whether other regions can be reached from here. That another one is dead it never says, and no hook runs because of
// anything but a task of the quorum.
//
// Tasks are ordered by (epoch, term, step), and one that comes before what has been seen is ignored. A task of a promotion,
// step and kind runs at most once: before a hook starts, and before its outcome is reported, that is written to a journal
// which survives the process and the power. What has run is answered from there. If the agent ends in the middle of a hook,
// the hook is run again only if it says of itself that this does no harm; otherwise the task has failed, and the outcome says
// that it may have run.
//
// One hook of a group runs at a time. A newer step ends an older one that the quorum does not ask for any more, with every
// process that came of it. What a hook says is kept to its last 4 KiB, in constant memory.
//
// # What it does not promise
//
// That a hook is harmless. A hook that was cut off has done a part of its work, and what another service does on its behalf
// (a container engine, a remote shell) goes on.
//
// # How it fails
//
// Without the quorum the agent goes on looking at its own region and lets a hook that runs finish; the outcome waits in the
// journal. Without its journal it starts no hook. A probe that cannot be run makes the health unknown, never failed.
//
// # Parts
//
// [Machine] decides (a pure core), [Agent] acts for it, [OpenJournal] remembers. Hooks and probes for PostgreSQL are in
// package postgres beneath this one, those that move traffic in package shift.
package agent
