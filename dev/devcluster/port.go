package main

import (
	"fmt"
	"syscall"
)

// reservePort takes a free loopback port for a server that is about to start, or to start again. The
// socket stays bound without listening, so that nobody else gets the port, while servers that set
// SO_REUSEPORT can listen on it. Until one does, connections are refused.
func reservePort() (int, error) {
	const soReusePort = 15
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	address, ok := bound.(*syscall.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("unexpected socket address %v", bound)
	}
	return address.Port, nil
}
