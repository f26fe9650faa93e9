{{/* The beginning of all names. */}}
{{- define "longshore.name" -}}
{{- $name := .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-longshore" .Release.Name) (contains "longshore" .Release.Name)) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that never change: selectors. Takes a list of the root and the component. */}}
{{- define "longshore.selector" -}}
app.kubernetes.io/name: longshore
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "longshore.labels" -}}
{{ include "longshore.selector" . }}
{{- with index . 0 }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- end }}

{{- define "longshore.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- define "longshore.priorityClass" -}}
{{- .Values.priorityClass.name | default (ternary (include "longshore.name" .) "" .Values.priorityClass.create) -}}
{{- end }}

{{- define "longshore.clusterSecret" -}}
{{- .Values.cluster.existingSecret | default (printf "%s-cluster" (include "longshore.name" .)) -}}
{{- end }}
{{- define "longshore.caConfigMap" -}}
{{- .Values.cluster.existingConfigMap | default (printf "%s-ca" (include "longshore.name" .)) -}}
{{- end }}
{{- define "longshore.joinSecret" -}}
{{- .Values.cluster.existingJoinSecret | default (printf "%s-join" (include "longshore.name" .)) -}}
{{- end }}
{{- define "longshore.apiTokenSecret" -}}
{{- .Values.supernode.existingApiTokenSecret | default (printf "%s-api" (include "longshore.name" .)) -}}
{{- end }}

{{/* What no container of Longshore needs: it is the restricted profile but for the user. */}}
{{- define "longshore.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* A peer is uid 0 because the node's files are root's; without capabilities that is their owner, and no more. */}}
{{- define "longshore.confinedRoot" -}}
{{ include "longshore.confined" . }}
runAsUser: 0
runAsGroup: 0
{{- with .Values.peer.securityContext }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Where the runtime keeps its settings, on the node and by custom. */}}
{{- define "longshore.settingsCustom" -}}
{{- get (dict "containerd" "/etc/containerd" "crio" "/etc/containers") .Values.peer.setup.runtime -}}
{{- end }}
{{- define "longshore.settingsPath" -}}
{{- .Values.peer.setup.hostPath | default (include "longshore.settingsCustom" .) -}}
{{- end }}

{{/* The node's settings as `longshore --root /host` sees them. Takes a list of the root and whether they are read only. */}}
{{- define "longshore.settingsMounts" -}}
{{- $readOnly := index . 1 -}}
{{- with index . 0 -}}
{{- $custom := include "longshore.settingsCustom" . -}}
{{- $path := include "longshore.settingsPath" . -}}
- name: settings
  mountPath: /host{{ $custom }}
  readOnly: {{ $readOnly }}
{{- if ne $custom $path }}
- name: settings
  mountPath: /host{{ $path }}
  readOnly: {{ $readOnly }}
{{- end }}
{{- range $index, $import := .Values.peer.setup.imports }}
- name: import-{{ $index }}
  mountPath: /host{{ $import }}
  readOnly: {{ $readOnly }}
{{- end }}
{{- end }}
{{- end }}

{{- define "longshore.settingsVolumes" -}}
- name: settings
  hostPath: { path: {{ include "longshore.settingsPath" . }}, type: DirectoryOrCreate }
{{- range $index, $import := .Values.peer.setup.imports }}
- name: import-{{ $index }}
  hostPath: { path: {{ $import }}, type: Directory }
{{- end }}
{{- end }}

{{/* Where the runtime listens, on the node. */}}
{{- define "longshore.runtimeSocket" -}}
{{- $custom := get (dict "containerd" "/run/containerd/containerd.sock" "crio" "/run/crio/crio.sock") .Values.peer.setup.runtime -}}
{{- .Values.peer.runtimeSocket | default $custom -}}
{{- end }}

{{/* Whether supernodes read nodes for their zones: where pods are not told, and nobody says it for all. */}}
{{- define "longshore.nodeZones" -}}
{{- if eq (toString .Values.supernode.nodeZones) "auto" -}}
{{- if and (not .Values.peer.zone) (semverCompare "<1.35.0-0" .Capabilities.KubeVersion.Version) }}true{{ end -}}
{{- else if .Values.supernode.nodeZones -}}
true
{{- end -}}
{{- end }}

{{/* Points the node's runtime at the peer, or back. Takes a list of the root and the action. */}}
{{- define "longshore.setupContainer" -}}
{{- $action := index . 1 -}}
{{- with index . 0 -}}
- name: setup
  image: {{ include "longshore.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - setup
    - {{ .Values.peer.setup.runtime }}
    - --root=/host
    {{- if eq $action "undo" }}
    - --undo
    {{- else }}
    - --proxy=http://127.0.0.1:{{ .Values.peer.ports.proxy }}
    {{- range .Values.registries }}
    - --registry={{ . }}
    {{- end }}
    {{- if .Values.peer.setup.replaceMirrors }}
    - --replace-mirrors
    {{- end }}
    {{- end }}
  securityContext:
    {{- include "longshore.confinedRoot" . | nindent 4 }}
  resources:
    requests: { cpu: 10m, memory: 16Mi }
    limits: { memory: 64Mi }
  volumeMounts:
    {{- include "longshore.settingsMounts" (list . false) | nindent 4 }}
    # the journal of what is to be put back
    - name: data
      mountPath: /host/var/lib/longshore
{{- end }}
{{- end }}

{{/* Looks whether that is as it should be, before there is a peer. */}}
{{- define "longshore.verifyContainer" -}}
- name: verify
  image: {{ include "longshore.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [doctor, --only=runtimes, --before-start, --root=/host, "--proxy=http://127.0.0.1:{{ .Values.peer.ports.proxy }}"]
  securityContext:
    {{- include "longshore.confinedRoot" . | nindent 4 }}
  resources:
    requests: { cpu: 10m, memory: 16Mi }
    limits: { memory: 64Mi }
  volumeMounts:
    {{- include "longshore.settingsMounts" (list . true) | nindent 4 }}
{{- end }}

{{/*
A runtime makes its socket anew at every start: settings that are newer than the socket have not been read yet. The shell that
compares them is the node's own, for only there the paths mean the same.
*/}}
{{- define "longshore.restartContainer" -}}
- name: restart
  image: {{ .Values.peer.setup.restart.image }}
  imagePullPolicy: IfNotPresent
  command: [nsenter, -t, "1", -m, --, sh, -c]
  args:
    - |
      newer=$(find {{ include "longshore.settingsPath" . }} -name '*.toml' ! -name hosts.toml -newer {{ include "longshore.runtimeSocket" . }})
      [ -z "$newer" ] || { echo "newer than the runtime: $newer"; {{ .Values.peer.setup.restart.command }}; }
  securityContext:
    privileged: true
    readOnlyRootFilesystem: true
    runAsUser: 0
  resources:
    requests: { cpu: 10m, memory: 16Mi }
    limits: { memory: 64Mi }
{{- end }}
