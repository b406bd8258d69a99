{{- define "spiffe-operator.labels" -}}
app.kubernetes.io/name: spiffe-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name of the TrustDomain object, or "" where the chart makes none. */}}
{{- define "spiffe-operator.trustDomainName" -}}
{{- .Values.trustDomain | default "" | replace "_" "-" -}}
{{- end }}

{{- define "spiffe-operator.serverPort" -}}
{{- dig "server" "port" 8081 (.Values.trustDomainSpec | default dict) -}}
{{- end }}

{{- define "spiffe-operator.image" -}}
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "spiffe-operator.pod" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{ end -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "spiffe-operator.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
{{- end }}
