{{/* Not app.kubernetes.io/name, by which KubeRay finds its Pods. */}}
{{- define "palestra.labels" -}}
palestra/release: {{ .Release.Name }}
{{- end }}

{{- define "palestra.claim" -}}
{{ .Values.runs.claim | default (printf "%s-runs" .Release.Name) }}
{{- end }}

{{/* What the Pods of head and workers share (own: the values of one): the level "restricted", and no
place to write to but memory, two scratch folders and the runs. */}}
{{- define "palestra.pod" -}}
enableServiceLinks: false
securityContext:
  fsGroup: 10001
  # Not file by file: the folder of the runs grows.
  fsGroupChangePolicy: OnRootMismatch
  runAsGroup: 10001
  runAsNonRoot: true
  runAsUser: 10001
  seccompProfile:
    type: RuntimeDefault
volumes:
- name: runs
  persistentVolumeClaim:
    claimName: {{ include "palestra.claim" . }}
- name: scratch
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: shared
  emptyDir:
    medium: Memory
    sizeLimit: {{ .own.sharedGiB }}Gi
{{- if .Values.run.recipe }}
- name: recipe
  configMap:
    name: {{ .Release.Name }}-recipe
{{- end }}
{{- end }}

{{- define "palestra.container" -}}
image: {{ .Values.image }}
imagePullPolicy: IfNotPresent
env:
- name: HOME
  value: /scratch
# What one node fetched the others find under the same path.
- name: HF_HOME
  value: /runs/.huggingface
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
{{- end }}

{{- define "palestra.mounts" -}}
- name: runs
  mountPath: /runs
- name: scratch
  mountPath: /scratch
- name: tmp
  mountPath: /tmp
- name: shared
  mountPath: /dev/shm
{{- if .Values.run.recipe }}
- name: recipe
  mountPath: /etc/palestra
  readOnly: true
{{- end }}
{{- end }}

{{/* A RayClusterSpec: the driver on the head, which has no place for actors; engines and ranks of
the learner on the workers. */}}
{{- define "palestra.cluster" -}}
rayVersion: {{ .Chart.AppVersion }}
authOptions:
  mode: token
headGroupSpec:
  rayStartParams:
    num-cpus: "0"
    dashboard-host: 0.0.0.0
  template:
    metadata:
      labels:
        {{- include "palestra.labels" . | nindent 8 }}
        palestra/drives: "1"
    spec:
      {{- include "palestra.pod" (merge (dict "own" .Values.head) .) | nindent 6 }}
      serviceAccountName: palestra-driver
      automountServiceAccountToken: true
      nodeSelector: {{ toJson .Values.head.nodeSelector }}
      containers:
      - name: ray-head
        {{- include "palestra.container" . | nindent 8 }}
        ports:
        - name: gcs-server
          containerPort: 6379
        - name: dashboard
          containerPort: 8265
        - name: metrics
          containerPort: 8080
        resources:
          {{- $own := dict "cpu" (toString .Values.head.cpus) "memory" (printf "%vGi" .Values.head.memoryGiB) }}
          requests: {{ toJson $own }}
          limits: {{ toJson $own }}
        volumeMounts:
          {{- include "palestra.mounts" . | nindent 10 }}
workerGroupSpecs:
- groupName: workers
  replicas: {{ .Values.workers.count }}
  minReplicas: {{ .Values.workers.count }}
  maxReplicas: {{ .Values.workers.count }}
  rayStartParams: {}
  template:
    metadata:
      labels:
        {{- include "palestra.labels" . | nindent 8 }}
    spec:
      {{- include "palestra.pod" (merge (dict "own" .Values.workers) .) | nindent 6 }}
      automountServiceAccountToken: false
      nodeSelector: {{ toJson .Values.workers.nodeSelector }}
      tolerations: {{ toJson .Values.workers.tolerations }}
      containers:
      - name: ray-worker
        {{- include "palestra.container" . | nindent 8 }}
        ports:
        - name: metrics
          containerPort: 8080
        resources:
          {{- $own := dict "cpu" (toString .Values.workers.cpus) "memory" (printf "%vGi" .Values.workers.memoryGiB) }}
          {{- if .Values.workers.gpus }}
          {{- $_ := set $own "nvidia.com/gpu" (toString .Values.workers.gpus) }}
          {{- end }}
          requests: {{ toJson $own }}
          limits: {{ toJson $own }}
        volumeMounts:
          {{- include "palestra.mounts" . | nindent 10 }}
{{- end }}
