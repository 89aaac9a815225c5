//go:build race

package meshlink

const raceDetector = true
