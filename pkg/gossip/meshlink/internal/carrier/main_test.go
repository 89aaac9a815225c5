package carrier

import (
	"testing"

	"go.uber.org/goleak"
)

// Run leaves nothing behind: neither in a test's end nor anywhere else.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
