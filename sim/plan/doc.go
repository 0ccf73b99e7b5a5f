// Package plan says what happens in a simulated run: who takes part, what goes wrong, and what is expected. A plan is drawn
// at random, or written by hand as a scenario, and has one text form for both; nothing else but the program's version
// decides how a run goes.
package plan
