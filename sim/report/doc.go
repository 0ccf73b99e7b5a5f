// Package report makes a page of a simulated run: one HTML file that needs nothing else, to look at in a browser.
//
// It shows a lane for every actor with what befell it, and for every resource who believed to hold it above the tokens that
// the storage accepted; all events in words below. Whatever an actor's name or an event's text holds is shown as text.
package report
