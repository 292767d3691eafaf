package volume_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

func crashes() volumetest.Crashes {
	return volumetest.Crashes{
		Disk:  func(t *testing.T) string { t.Helper(); return t.TempDir() },
		Open:  func(root string) (volume.Driver, error) { return volume.NewDirectory(root) },
		Empty: func(t *testing.T, root string) { t.Helper(); expectEmpty(NewWithT(t), root) },
		Whole: func(*testing.T, string, volume.Driver) {},
	}
}

// TestChild is what TestS5_EveryCrashLeadsToOneRightEnd runs and kills; without its environment it does nothing.
func TestChild(t *testing.T) { crashes().Child(t) }

func TestS5_EveryCrashLeadsToOneRightEnd(t *testing.T) { crashes().Run(t) }
