package history

import (
	"testing"

	"watershed/internal/devserver/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }
