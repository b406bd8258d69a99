package main

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func workloadAPI(socket string) workloadapi.SourceOption {
	return workloadapi.WithClientOptions(workloadapi.WithAddr("unix://" + socket))
}

func fetchJWT(ctx context.Context, socket, audience string) error {
	own, err := workloadapi.NewJWTSource(ctx, workloadAPI(socket))
	if err != nil {
		return err
	}
	defer own.Close()
	svid, err := own.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	fmt.Println(svid.Marshal())
	return nil
}

// verifyJWT judges a token itself, by the keys of its trust domain that the Workload API gives.
func verifyJWT(ctx context.Context, socket, audience, token string) error {
	bundles, err := workloadapi.NewJWTSource(ctx, workloadAPI(socket))
	if err != nil {
		return err
	}
	defer bundles.Close()
	return judgeJWT(bundles, audience, token)
}

// verifyJWTByDocument judges a token by the JWT keys of a SPIFFE bundle document.
func verifyJWTByDocument(trustDomain, audience, bundlePath, token string) error {
	domain, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return err
	}
	bundle, err := spiffebundle.Load(domain, bundlePath)
	if err != nil {
		return err
	}
	return judgeJWT(bundle, audience, token)
}

func judgeJWT(bundles jwtbundle.Source, audience, token string) error {
	svid, err := jwtsvid.ParseAndValidate(token, bundles, []string{audience})
	if err != nil {
		return err
	}
	fmt.Println(svid.ID)
	return nil
}
