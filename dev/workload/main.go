// Workload is a SPIFFE-aware program for tests and the demo. It has an X.509-SVID and trust bundles
// from files, as a pod finds them in its volume, or from the Workload API, and uses them through
// go-spiffe, so that what the operator issues is judged by somebody else's code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const usage = `usage: workload COMMAND [FLAG]...

  serve [--listen ADDRESS]     answer mutual TLS with the peer's SPIFFE ID
  dial ADDRESS [--timeout D]   connect with mutual TLS and print who answered what
  show                         print the SPIFFE ID, DNS names, validity and chain of the credentials
  wait [--timeout D]           wait until the credentials can be read
  verify --trust-domain NAME BUNDLE CHAIN
                               verify a PEM chain against a PEM bundle and print its SPIFFE ID
  jwt --audience NAME          print a JWT-SVID of the Workload API
  verify-jwt --audience NAME TOKEN
                               verify a JWT-SVID by a bundle of the Workload API and print its SPIFFE ID
  verify-jwt --trust-domain NAME --audience NAME BUNDLE TOKEN
                               verify a JWT-SVID by a SPIFFE bundle document and print its SPIFFE ID

jwt and verify-jwt take --socket PATH, that of the Workload API. serve and dial take it too; without
it serve, dial, show and wait read --dir (default $SPIFFE_CREDENTIAL_FOLDER, else
/run/secrets/workload-spiffe-credentials). serve and dial take --id ID or --member-of TRUST-DOMAIN to
say who may be at the other end; the default is anyone of our own trust domain.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	dir := flags.String("dir", folder(), "")
	id, memberOf := flags.String("id", "", ""), flags.String("member-of", "", "")
	timeout := flags.Duration("timeout", 10*time.Second, "")
	listen := flags.String("listen", ":8443", "")
	trustDomain := flags.String("trust-domain", "", "")
	socket, audience := flags.String("socket", "", ""), flags.String("audience", "", "")
	// Flags may stand on both sides of the other arguments.
	var operands []string
	for {
		flags.Parse(args)
		if args = flags.Args(); len(args) == 0 {
			break
		}
		operands, args = append(operands, args[0]), args[1:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	files := credentials{dir: *dir}
	switch {
	case command == "serve" && len(operands) == 0:
		own, authorizer, err := peers(ctx, files, *socket, *id, *memberOf)
		if err != nil {
			return err
		}
		return serve(own, *listen, authorizer)
	case command == "dial" && len(operands) == 1:
		own, authorizer, err := peers(ctx, files, *socket, *id, *memberOf)
		if err != nil {
			return err
		}
		return dial(ctx, own, operands[0], authorizer)
	case command == "jwt" && len(operands) == 0:
		return fetchJWT(ctx, *socket, *audience)
	case command == "verify-jwt" && len(operands) == 1:
		return verifyJWT(ctx, *socket, *audience, operands[0])
	case command == "verify-jwt" && len(operands) == 2:
		return verifyJWTByDocument(*trustDomain, *audience, operands[0], operands[1])
	case command == "show" && len(operands) == 0:
		return show(files)
	case command == "wait" && len(operands) == 0:
		return wait(files, *timeout)
	case command == "verify" && len(operands) == 2:
		return verify(*trustDomain, operands[0], operands[1])
	}
	return errors.New("not understood; the usage is\n" + usage)
}

func folder() string {
	if dir := os.Getenv("SPIFFE_CREDENTIAL_FOLDER"); dir != "" {
		return dir
	}
	return "/run/secrets/workload-spiffe-credentials"
}

// peers gives what we are, and who may be at the other end.
func peers(ctx context.Context, files credentials, socket, id, memberOf string) (source, tlsconfig.Authorizer, error) {
	var own source = files
	if socket != "" {
		var err error
		if own, err = workloadapi.NewX509Source(ctx, workloadAPI(socket)); err != nil {
			return nil, nil, err
		}
	}
	authorizer, err := authorize(own, id, memberOf)
	return own, authorizer, err
}

func authorize(own source, id, memberOf string) (tlsconfig.Authorizer, error) {
	if id != "" {
		allowed, err := spiffeid.FromString(id)
		return tlsconfig.AuthorizeID(allowed), err
	}
	if memberOf != "" {
		domain, err := spiffeid.TrustDomainFromString(memberOf)
		return tlsconfig.AuthorizeMemberOf(domain), err
	}
	svid, err := own.GetX509SVID()
	if err != nil {
		return nil, err
	}
	return tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain()), nil
}
