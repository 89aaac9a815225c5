package netlab

import (
	"os"
	"testing"
	"time"
)

func TestProcessorTimeIsThatOfAllThreads(t *testing.T) {
	before, threads := ProcessorTime(os.Getpid())
	if before <= 0 || threads < 1 {
		t.Fatalf("%v in %d threads", before, threads)
	}
	for end := time.Now().Add(10 * time.Second); ; { // until the kernel has counted some of it
		if after, _ := ProcessorTime(os.Getpid()); after > before {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still %v after 10 s of work", before)
		}
	}
	if used, threads := ProcessorTime(-1); used != 0 || threads != 0 {
		t.Errorf("no process: %v in %d threads", used, threads)
	}
}
