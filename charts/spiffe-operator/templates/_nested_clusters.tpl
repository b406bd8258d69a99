{{/*
All nested clusters by name, as JSON, each with its `values` and the `path` that names them.
What is wrong with the values ends the rendering with a sentence. Nothing secret is in it.
*/}}
{{- define "spiffe-operator.nestedClusters" -}}
{{- $external := index .Values "external-spire-server" | default dict -}}
{{- $all := dict -}}
{{- range $key, $given := dict "kubeConfigs" .Values.kubeConfigs "external-spire-server.kubeConfigs" $external.kubeConfigs -}}
{{- range $name, $values := $given | default dict -}}
{{- /* What is null was taken away by another file of values. */ -}}
{{- if not (kindIs "invalid" $values) -}}
{{- $path := printf "%s.%s" $key $name -}}
{{- if hasKey $all $name -}}
{{- fail (printf "%s and %s are the same nested cluster: give it once" (get $all $name).path $path) -}}
{{- end -}}
{{- include "spiffe-operator.checkName" (dict "root" $ "name" $name "path" $path "values" $values) -}}
{{- $_ := set $all $name (dict "path" $path "values" $values) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $all | toJson -}}
{{- end }}

{{/* Objects are called by the name, and the Secret has a longer one. */}}
{{- define "spiffe-operator.checkName" -}}
{{- $label := "[a-z0-9]([-a-z0-9]*[a-z0-9])?" -}}
{{- if or (gt (len .name) 240) (not (regexMatch (printf "^%s([.]%s)*$" $label $label) .name)) -}}
{{- fail (printf "%s: %q is no name of a nested cluster: it must be at most 240 lower-case letters, digits, hyphens and dots, as the name of a Kubernetes object" .path .name) -}}
{{- end -}}
{{- $cluster := .values.clusterName | default .name -}}
{{- if and .root.Values.trustDomain (eq $cluster .root.Values.clusterName) (not .values.trustDomainRef) -}}
{{- fail (printf "%s: %q is the name of this cluster (clusterName): give one of them another name" .path $cluster) -}}
{{- end -}}
{{- if not (or .root.Values.trustDomain .values.trustDomainRef) -}}
{{- fail (printf "%s belongs to no trust domain: set trustDomain, or %s.trustDomainRef.name to the name of a TrustDomain" .path .path) -}}
{{- end -}}
{{- end }}

{{/* Which of the three forms of a kubeconfig is given; an empty text is none. */}}
{{- define "spiffe-operator.kubeConfigForm" -}}
{{- $forms := list -}}
{{- range $form := list "kubeConfig" "kubeConfigBase64" "secretRef" -}}
{{- if get $.values $form -}}
{{- $forms = append $forms $form -}}
{{- end -}}
{{- end -}}
{{- if gt (len $forms) 1 -}}
{{- fail (printf "%s has %s: give one of them" .path (join " and " $forms)) -}}
{{- end -}}
{{- if not $forms -}}
{{- fail (printf "%s has no kubeconfig: give kubeConfig, kubeConfigBase64 or secretRef, one that is not empty" .path) -}}
{{- end -}}
{{- first $forms -}}
{{- end }}

{{/* The kubeconfig in the values, in base64 once. */}}
{{- define "spiffe-operator.kubeConfigData" -}}
{{- $text := .values.kubeConfig -}}
{{- $path := printf "%s.%s" .path .form -}}
{{- if eq .form "kubeConfigBase64" -}}
{{- $text = include "spiffe-operator.withoutBase64" .values.kubeConfigBase64 -}}
{{- if not $text -}}
{{- fail (printf "%s is no base64: `base64 -w0 FILE` makes it of a kubeconfig; a kubeconfig as it is belongs into %s.kubeConfig" $path .path) -}}
{{- end -}}
{{- $inner := include "spiffe-operator.withoutBase64" $text -}}
{{- if $inner -}}
{{- $text = $inner -}}
{{- if include "spiffe-operator.withoutBase64" $text -}}
{{- fail (printf "%s is in base64 more than twice" $path) -}}
{{- end -}}
{{- end -}}
{{- else if contains "clusters" (include "spiffe-operator.withoutBase64" $text) -}}
{{- fail (printf "%s is in base64, which belongs into %s.kubeConfigBase64" $path .path) -}}
{{- end -}}
{{- $document := fromYaml $text -}}
{{- $missing := list -}}
{{- range $key := list "clusters" "users" "contexts" -}}
{{- $value := get $document $key -}}
{{- if not (and $value (kindIs "slice" $value)) -}}
{{- $missing = append $missing $key -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "%s is no kubeconfig: that is YAML or JSON with clusters, users and contexts, and this has no %s" $path (join ", " $missing)) -}}
{{- end -}}
{{- $text | b64enc -}}
{{- end }}

{{/*
The text that a text is the base64 of: standard or URL-safe, with line ends anywhere, with or without
padding. "" where it is none.
*/}}
{{- define "spiffe-operator.withoutBase64" -}}
{{- $compact := regexReplaceAll "\\s" . "" | replace "-" "+" | replace "_" "/" | trimSuffix "=" | trimSuffix "=" -}}
{{- $rest := mod (len $compact) 4 -}}
{{- if and (regexMatch "^[A-Za-z0-9+/]+$" $compact) (ne $rest 1) -}}
{{- printf "%s%s" $compact (index (list "" "" "==" "=") $rest) | b64dec -}}
{{- end -}}
{{- end }}
