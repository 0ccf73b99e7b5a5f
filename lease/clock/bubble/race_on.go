//go:build race

package bubble

// RaceDetector says whether this is a build for the race detector.
const RaceDetector = true
