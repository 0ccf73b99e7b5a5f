// Package proctree runs a command so that every process that comes of it can be ended, also those that have left its
// process group or its session.
//
// # What it promises
//
// [Start] makes this process the one that orphans of the tree fall to (a child subreaper, see prctl(2)), so that no process
// of the tree can hide by letting its parent die. [Tree.Kill] sends SIGKILL to all of them, again and again until none is
// left, and [Tree.Gone] is closed when the kernel says that none is: there are no children to wait for any more. A process
// id is never taken on trust: a process is named by the id and the time of its start together, and signalled through a
// descriptor that cannot be reused.
//
// If this process dies, the kernel kills the command, but not what the command had started.
//
// # What it does not promise
//
// What another service starts on behalf of the command (a container engine, systemd-run, at, a remote shell) is not in the
// tree. A process that may not be signalled (setuid) or that hangs in the kernel stays; [Tree.Left] names it.
//
// # What it assumes
//
// Linux with /proc mounted, and that nothing else in this process starts or waits for children. There is one Tree at a
// time.
//
// # The terminal
//
// A command that reads from a terminal must be in its foreground. [Tree.Lend] puts it there, [Tree.Reclaim] takes the
// terminal back, and [Tree.Suspend] hands control to the shell when the command was stopped from the keyboard.
package proctree
