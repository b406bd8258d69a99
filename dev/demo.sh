#!/bin/bash
# Shows the operator at work: on a cluster of its own on this host (make demo), or, after asking, on
# the cluster of your current kubectl context (make demo CLUSTER=current). Every wait has a deadline;
# a step that fails shows what there is to see and ends the demo.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/spiffe-operator/target}
images=${SPIFFE_IMAGES:-$CARGO_TARGET_DIR/images}
operator=$CARGO_TARGET_DIR/debug/spiffe-operator
folder=/run/secrets/workload-spiffe-credentials
trust_domain=example.org
# Where the pods of the examples get their program from.
workload_image=localhost/spiffe-workload:dev
# Tells the kinds that the demo made in a current cluster from those that were there.
made_by_demo=dev/made-by=spiffe-operator-demo

# Set by the cluster of one's own or by the current one.
kubectl=()         # the command, pointed at the cluster
operator_logs=()   # prints what the operator logged lately
installed=false    # whether there is anything to see when a step fails
scratch=

main() {
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	check_host
	case "${CLUSTER:-}" in
	"") own_cluster ;;
	current) current_cluster ;;
	*) die "CLUSTER=$CLUSTER is not known: leave it out, or say CLUSTER=current" ;;
	esac
	apply_examples
	show_pod server
	show_pod client
	connect
	show_waiting_pod
	register_waiting_pod
	farewell
}

# ---- The steps that both kinds of cluster share.

apply_examples() {
	step "Applying a trust domain, a registration and two pods"
	apply examples/trust-domain.yaml
	apply examples/cluster-spiffe-id.yaml
	apply examples/server-and-client.yaml
	quietly k wait --for=condition=Ready trustdomain/example --timeout=60s
	run get trustdomains,clustertrustbundles
	quietly k -n spiffe-demo rollout status deployment/server deployment/client --timeout=120s
	run -n spiffe-demo get pods
	step "Both pods run"
}

show_pod() {
	step "What the pod \"$1\" has: its files, its SPIFFE ID and validity, and what openssl says"
	in_pod "$1" ls -l "$folder/"
	in_pod "$1" workload show
	# The first certificate of the file is the pod's own, the others are its chain.
	in_pod "$1" openssl verify -CAfile "$folder/$trust_domain.spiffe-trust-bundle.pem" \
		-untrusted "$folder/credential-bundle.pem" "$folder/credential-bundle.pem"
}

connect() {
	local id=spiffe://$trust_domain/ns/spiffe-demo/sa
	step "Mutual TLS from the client to the server through the Service, each checking the other's ID"
	in_pod client workload dial server.spiffe-demo.svc.cluster.local:8443 --id "$id/server"
	step "The server refuses everybody but the client, here itself"
	if in_pod server workload dial server.spiffe-demo.svc.cluster.local:8443; then
		die "the server accepted a peer that it must refuse"
	fi
	run -n spiffe-demo logs deployment/server --tail=1
}

show_waiting_pod() {
	step "A third pod that no ClusterSPIFFEID matches"
	# From an earlier demo.
	quietly k delete --ignore-not-found -f examples/waiting-pod-cluster-spiffe-id.yaml
	quietly k delete --ignore-not-found --timeout=60s -f examples/waiting-pod.yaml
	apply examples/waiting-pod.yaml
	uid=$(k -n spiffe-demo get pod latecomer -o 'jsonpath={.metadata.uid}')
	wait_for 60 "an event on the pod latecomer that says why it waits" event_of_waiting_pod NotRegistered
	run -n spiffe-demo get pod latecomer
	run -n spiffe-demo get events --field-selector "involvedObject.uid=$uid,reason=NotRegistered" \
		-o custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message
	step "It waits, and the event says why"
}

register_waiting_pod() {
	step "Applying a ClusterSPIFFEID that matches it"
	local since
	since=$(milliseconds)
	apply examples/waiting-pod-cluster-spiffe-id.yaml
	wait_for 30 "a certificate for the pod latecomer" is_issued
	local issued=$(($(milliseconds) - since))
	quietly k -n spiffe-demo wait --for=condition=Ready pod/latecomer --timeout=150s
	local running=$(($(milliseconds) - since))
	run -n spiffe-demo get pod latecomer
	run -n spiffe-demo exec latecomer -- workload show
	step "$(printf 'Signed %s s after the ClusterSPIFFEID was applied; running after %s s, at the kubelet'"'"'s next attempt' \
		"$(seconds $issued)" "$(seconds $running)")"
}

is_issued() {
	local answer
	answer=$(k -n spiffe-demo get podcertificaterequests --field-selector spec.podName=latecomer -o \
		"jsonpath={range .items[?(@.spec.podUID==\"$uid\")]}{.status.conditions[0].type}{end}")
	[[ $answer == *Issued* ]]
}

event_of_waiting_pod() {
	[ -n "$(k -n spiffe-demo get events --field-selector "involvedObject.uid=$uid,reason=$1" -o name)" ]
}

farewell() {
	step "Done. Everything above is from a real cluster, which stays for you to look around:"
	cat <<-END

		  $kubectl_shown get trustdomains,clusterspiffeids,clustertrustbundles
		  $kubectl_shown -n spiffe-demo get pods,podcertificaterequests,events
		  $kubectl_shown -n spiffe-demo exec deploy/client -- workload show
		  $kubectl_shown describe trustdomain example
		$look_at_operator

	END
	leave
}

# ---- A cluster of one's own: started on this host from servers that are built from source.

own_cluster() {
	# Nothing that points to another cluster has a say here.
	unset KUBECONFIG
	kubectl=(dev/kubectl)
	kubectl_shown=dev/kubectl
	operator_logs=(k -n spiffe-system logs deployment/spiffe-operator --tail=40)
	look_at_operator="  $kubectl_shown -n spiffe-system logs deploy/spiffe-operator"
	[ "$(id -u)" = 0 ] || die "the demo's cluster runs containers on this host: run it as root, or use" \
		"a cluster of yours with 'make demo CLUSTER=current'"

	step "Building the Kubernetes servers (the first time: about 10 minutes)"
	dev/devcluster.sh build node
	build_operator
	step "Making the images"
	make_images

	step "Starting a single-node cluster"
	dev/devcluster.sh up
	installed=true
	run version
	run get nodes

	step "Loading the images"
	dev/devcluster.sh load "$images/operator.tar" "$images/workload.tar"
	install_operator
}

make_images() {
	dev/devcluster.sh images --out "$images"
	dev/devcluster.sh image localhost/spiffe-operator:dev --out "$images/operator.tar" \
		--entrypoint /spiffe-operator "$operator"
}

install_operator() {
	step "Installing the operator"
	local digest loaded=dev/loaded-image
	digest=$(sha256sum "$images/operator.tar" | cut -c1-16)
	local before
	before=$(k -n spiffe-system get deployment spiffe-operator --ignore-not-found \
		-o 'jsonpath={.metadata.annotations.dev/loaded-image}')
	run apply -k config/default
	if [ -n "$before" ] && [ "$before" != "$digest" ]; then
		echo "  the image has changed since the last demo: restarting the operator"
		quietly k -n spiffe-system rollout restart deployment/spiffe-operator
	fi
	quietly k -n spiffe-system annotate --overwrite deployment/spiffe-operator "$loaded=$digest"
	quietly k -n spiffe-system rollout status deployment/spiffe-operator --timeout=120s
	run -n spiffe-system get pods -o custom-columns='NAME:.metadata.name,STATUS:.status.phase,USER:.spec.securityContext.runAsUser,READ-ONLY:.spec.containers[0].securityContext.readOnlyRootFilesystem,CAPABILITIES DROPPED:.spec.containers[0].securityContext.capabilities.drop'
	step "The operator is ready"
}

# ---- The user's own current context: the operator runs on this host, with the user's rights.

current_cluster() {
	command -v kubectl >/dev/null || die "CLUSTER=current needs kubectl on PATH"
	local context server
	# A copy comes first, and everything else is about the copy: the question, and what is done after
	# the answer, whatever has become of the current context by then.
	scratch=$(mktemp -d)
	kubectl config view --minify --flatten --raw >"$scratch/kubeconfig" || die "kubectl has no current context"
	unset KUBECONFIG
	kubectl=(kubectl "--kubeconfig=$scratch/kubeconfig")
	context=$(k config current-context)
	server=$(k config view -o 'jsonpath={.clusters[0].cluster.server}')
	kubectl_shown="kubectl --context=$context"
	ask "$context" "$server"

	operator_logs=(tail -n 40 "$scratch/operator.log")
	look_at_operator="  less $scratch/operator.log"
	workload_image=${WORKLOAD_IMAGE:-$workload_image}

	check_current_cluster
	build_operator
	if [ -z "${WORKLOAD_IMAGE:-}" ]; then
		step "Making the pods' image"
		dev/devcluster.sh images --out "$images"
		cat <<-END
			  The cluster's nodes must know $workload_image. Load it from
			  $images/workload.tar, for instance
			    kind load image-archive $images/workload.tar --name CLUSTER
			    minikube image load $images/workload.tar
			    ctr --namespace k8s.io images import $images/workload.tar    (on a node)
			  or push it to a registry of yours and say WORKLOAD_IMAGE=NAME:TAG.
		END
		confirm "Type yes when it is loaded"
	fi
	step "Installing the kinds"
	installed=true
	local file
	for file in crds/*.yaml; do
		# What is there already may be somebody else's, and is left alone.
		k get -f "$file" >/dev/null 2>&1 && continue
		run create -f "$file"
		quietly k label -f "$file" "$made_by_demo"
	done
	for file in crds/*.yaml; do
		quietly k wait --for=condition=Established --timeout=30s -f "$file"
	done
	k get namespace spiffe-system >/dev/null 2>&1 || run create namespace spiffe-system
	step "Starting the operator on this host; it logs to $scratch/operator.log"
	"$operator" run --kubeconfig "$scratch/kubeconfig" --namespace spiffe-system \
		--http-address 127.0.0.1:0 --log-format text >"$scratch/operator.log" 2>&1 &
	operator_pid=$!
}

ask() {
	cat <<-END
		This demo is about to use a cluster of yours:

		    context  $1
		    server   $2

		It makes the custom resource definitions of the operator where they are missing, the
		namespaces spiffe-system and spiffe-demo, the TrustDomain "example" and ClusterSPIFFEIDs named
		spiffe-demo*, and runs the operator on this host with your rights until you end it.

	END
	confirm "Type yes to go on"
}

confirm() {
	[ -t 0 ] || die "this needs a terminal to answer on; nothing was done"
	local answer
	# The end of input (Ctrl-D) is an answer, too.
	read -r -p "$1: " answer || echo
	[ "$answer" = yes ] && return
	echo "Nothing was done, as the answer was not yes."
	exit 0
}

check_current_cluster() {
	step "Checking the cluster"
	quietly k version --request-timeout=10s
	local kind served
	served=$(k api-resources --api-group=certificates.k8s.io -o name)
	for kind in podcertificaterequests clustertrustbundles; do
		[[ $served == *$kind.* ]] ||
			die "the API server does not serve $kind: Kubernetes 1.37 does, 1.35 and 1.36 with the" \
				"feature gates in docs/getting-started.md"
	done
	if [ -n "$(k get deployments --all-namespaces -l app.kubernetes.io/name=spiffe-operator -o name)" ]; then
		die "spiffe-operator runs in this cluster already: apply the examples by hand"
	fi
	# The demo's trust domain would serve them, too.
	local others
	others=$(k get clusterspiffeids.spire.spiffe.io -o name 2>/dev/null | grep -v '/spiffe-demo' || true)
	[ -z "$others" ] || die "this cluster has ClusterSPIFFEIDs that the demo would take for its own:" "$others"
}

# ---- Building.

check_host() {
	[ "$(uname -s)" = Linux ] || die "Linux is needed; this is $(uname -s)"
	local missing=() tool
	for tool in cargo go gcc make; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ ${#missing[@]} = 0 ] || die "not on PATH: ${missing[*]}. The demo needs Rust, Go, make and gcc"
}

build_operator() {
	step "Building the operator (the first time: some minutes)"
	cargo build --bin spiffe-operator
}

# ---- Telling what happens.

started=${EPOCHREALTIME/[.,]/}

milliseconds() { echo $(((${EPOCHREALTIME/[.,]/} - started) / 1000)); }

seconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

step() { printf '\n[%6s s] %s\n' "$(seconds "$(milliseconds)")" "$*"; }

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

k() { "${kubectl[@]}" "$@"; }

# Shows a kubectl command and what it says, and fails when it does.
run() {
	printf '  $ %s %s\n' "$kubectl_shown" "$*"
	k "$@" 2>&1 | sed 's/^/    /'
}

in_pod() { run -n spiffe-demo exec "deploy/$1" -- "${@:2}"; }

# Applies an example, with another image where the user gave one.
apply() {
	if [ "$workload_image" = localhost/spiffe-workload:dev ]; then
		run apply -f "$1"
	else
		sed "s#localhost/spiffe-workload:dev#$workload_image#" "$1" | run apply -f -
	fi
}

# Runs a command whose words matter only when it fails.
quietly() {
	local said
	said=$("$@" 2>&1) || die "$* failed: $said"
}

# Polls a condition: wait_for SECONDS WHAT COMMAND...
wait_for() {
	local end=$(($(milliseconds) + $1 * 1000)) what=$2
	until "${@:3}"; do
		[ "$(milliseconds)" -lt $end ] || die "not within $1 s: $what"
		sleep 0.1
	done
}

# ---- The end, good or bad.

leave() {
	how_to_clear_up
	[ "${CLUSTER:-}" = current ] || return 0
	read -r -p "Enter ends the operator. " _ || echo
}

how_to_clear_up() {
	if [ "${CLUSTER:-}" != current ]; then
		echo "  make demo-down    takes the cluster away"
		return
	fi
	cat <<-END
		To remove what the demo made:
		  $kubectl_shown delete namespace spiffe-demo
		  $kubectl_shown delete clusterspiffeids spiffe-demo spiffe-demo-latecomer
		  $kubectl_shown delete trustdomain example
		  $kubectl_shown delete namespace spiffe-system
		  $kubectl_shown delete crd -l $made_by_demo    # with all objects of these kinds
	END
}

finish() {
	local status=$?
	trap - EXIT
	if [ $status != 0 ] && $installed; then
		{
			[ $status = 130 ] || [ $status = 143 ] || look_at_failure || true
			printf '\nThe demo has not come to its end. "make demo" begins again.\n'
			how_to_clear_up
		} >&2
	fi
	if [ -n "${operator_pid:-}" ]; then
		kill "$operator_pid" 2>/dev/null || true
		wait "$operator_pid" 2>/dev/null || true
	fi
	# The log stays when something went wrong; the copied credentials never do.
	if [ -n "$scratch" ]; then
		rm -f "$scratch/kubeconfig"
		[ $status != 0 ] && [ -e "$scratch/operator.log" ] || rm -rf "$scratch"
	fi
	exit $status
}

look_at_failure() {
	printf '\n---- The demo failed. This is what there is to see:\n'
	set +e
	run get trustdomains,clusterspiffeids -o wide
	run get pods --all-namespaces -o wide
	run -n spiffe-demo describe pods
	run -n spiffe-system describe pods
	run -n spiffe-demo get podcertificaterequests -o wide
	printf '  What the operator logged:\n'
	"${operator_logs[@]}" 2>&1 | sed 's/^/    /'
}

main "$@"
