package embedded

import (
	"fmt"
	"net"
	"strconv"
)

const loopback = "127.0.0.1"

func loopbackAddress(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

func portFree(port int) bool {
	listener, err := net.Listen("tcp", loopbackAddress(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// choosePort takes the wanted port, or fails with a [Problem] naming flag. With
// none wanted it takes the first free of the preferred ones (the port of the
// last run, then the usual one), or else any.
func choosePort(wanted int, flag string, preferred ...int) (int, error) {
	if wanted != 0 {
		return wanted, checkPort(wanted, flag)
	}
	for _, port := range preferred {
		if port != 0 && portFree(port) {
			return port, nil
		}
	}
	listener, err := net.Listen("tcp", loopbackAddress(0))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// checkPort fails with a [Problem] naming flag when a wanted port is taken.
func checkPort(wanted int, flag string) error {
	if wanted == 0 || portFree(wanted) {
		return nil
	}
	return &Problem{
		Code:    CodePortInUse,
		Message: fmt.Sprintf("port %d is in use by another program", wanted),
		WayOut:  "stop that program or choose another port with " + flag,
	}
}
