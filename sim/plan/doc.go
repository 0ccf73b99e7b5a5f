// Package plan says what happens in a simulated run: who takes part, what goes wrong, and what is expected. A plan is drawn
// at random, or written by hand as a scenario, and has one text form for both; nothing else but the program's version
// decides how a run goes.
//
// The text is made of lines. The first is "writ-sim 1". A block of comments right below says what the plan is about;
// elsewhere # starts a comment that is ignored. Then comes a directive a line, in any order:
//
//	name holder-paused         one value: also seed, store, duration, election, heartbeat, max-ttl, lock-delay, retention,
//	seed 42                    sync, sample, guard-lease and storage
//	link eu us rtt 85ms jitter 4ms loss 2 dup 1
//	node n1 region eu ppm 120
//	rule r open drain 2s
//	guard g1 region eu ppm -80 covers r* slack 2s park 10s
//	guard g2 region us covers r1 storage
//	client c1 region eu ppm -300 resources r1,r2 all ttl 10s hold 4s think 1s write 200ms checkpoint 1s priority 5 impatience 10 try 100 leave 20
//	work nightly every 10s catch-up all window 1m overlap skip takes 2s fails 10 stuck 5 preferred eu
//	work queue partitions 8 homes eu,us takes 500ms
//	service s1 region eu works nightly,queue ttl 5s grace 3s strict
//	watcher w1 region us prefix r stay 20s
//	at 12.5s for 3s cut n1 | n2 n3
//	at 30s for 10s slow eu | @leader by 50ms
//	at 40s for 10s lossy @holder amount 250
//	expect S4
//
// What is left out has a default; only a name's region, a client's resources and a link's round trip time must be given. In a
// fault a region stands for everybody in it, [Leader] and [Holder] for whoever it is then, and no | for all others. The
// constants of [Kind] say what each fault does.
//
// A plan that passes [Plan.Validate] is what [Parse] makes of its String again. [Draw] makes plans, [Shrink] makes them small.
package plan
