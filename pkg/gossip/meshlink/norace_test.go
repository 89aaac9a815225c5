//go:build !race

package meshlink

const raceDetector = false
