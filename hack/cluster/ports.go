package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below those that the kernel gives to outgoing connections: otherwise a stranger's connection could
// sit on the API server's port while it is stopped.
const (
	firstPort = 20000
	portCount = 10000
)

// FreePorts gives n different ports on which nobody listens.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for _, offset := range rand.Perm(portCount) {
		if len(ports) == n {
			return ports, nil
		}
		if port := firstPort + offset; free(port) {
			ports = append(ports, port)
		}
	}
	return nil, errors.New("find free ports: none between 20000 and 29999 on 127.0.0.1")
}

func free(port int) bool {
	listener, err := net.Listen("tcp", address(port)) //nolint:noctx // Binding to the loopback does not block.
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

func address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func url(scheme string, port int) string {
	return fmt.Sprintf("%s://%s", scheme, address(port))
}
