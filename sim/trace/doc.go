// Package trace is the story of one simulated run, as data: who was up, who believed what, and what was written. It knows
// nothing of how a run comes about. Package report draws it.
package trace
