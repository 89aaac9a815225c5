package netlab

import (
	"os"
	"testing"
)

func TestProcessorTimeIsThatOfAllThreads(t *testing.T) {
	before, threads := ProcessorTime(os.Getpid())
	if before <= 0 || threads < 1 {
		t.Fatalf("%v in %d threads", before, threads)
	}
	for { // until the kernel has counted some of it
		if after, _ := ProcessorTime(os.Getpid()); after > before {
			break
		}
	}
	if used, threads := ProcessorTime(-1); used != 0 || threads != 0 {
		t.Errorf("no process: %v in %d threads", used, threads)
	}
}
