package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const limit = 10 * time.Second

func serve(own source, address string, authorizer tlsconfig.Authorizer) error {
	listener, err := tls.Listen("tcp", address, tlsconfig.MTLSServerConfig(own, own, authorizer))
	if err != nil {
		return err
	}
	log.Printf("serving on %s", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(conn.(*tls.Conn))
	}
}

func answer(conn *tls.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if err := conn.Handshake(); err != nil {
		log.Printf("refused %s: %v", conn.RemoteAddr(), err)
		return
	}
	peer, err := x509svid.IDFromCert(conn.ConnectionState().PeerCertificates[0])
	if err != nil {
		log.Printf("refused %s: %v", conn.RemoteAddr(), err)
		return
	}
	log.Printf("served %s", peer)
	fmt.Fprintf(conn, "hello %s\n", peer)
}

func dial(ctx context.Context, own source, address string, authorizer tlsconfig.Authorizer) error {
	dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: tlsconfig.MTLSClientConfig(own, own, authorizer)}
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer plain.Close()
	conn := plain.(*tls.Conn)
	if deadline, limited := ctx.Deadline(); limited {
		conn.SetDeadline(deadline)
	}
	// With TLS 1.3 a server that refuses the client says so only now.
	said, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	peer, err := x509svid.IDFromCert(conn.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	fmt.Printf("%s answered: %s", peer, said)
	return nil
}
