{{/* Objects of cert-manager. */}}

{{/* (dict "root" $ "suffix" NAME "issuer" ISSUER "names" (list DNS…) "usages" (list USAGE…)) */}}
{{- define "pie-pool.certificate" }}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ include "pie-pool.name" .root }}-{{ .suffix }}
  labels: {{- include "pie-pool.labels" (list .root "pool") | nindent 4 }}
spec:
  secretName: {{ include "pie-pool.name" .root }}-{{ .suffix }}
  {{- if .names }}
  dnsNames: {{- toYaml .names | nindent 4 }}
  {{- else }}
  commonName: {{ include "pie-pool.name" .root }}-{{ .suffix }}
  {{- end }}
  usages: {{- toYaml .usages | nindent 4 }}
  {{- if .ca }}
  isCA: true
  duration: 87600h
  {{- else }}
  duration: 2160h
  renewBefore: 720h
  {{- end }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: {{ ternary "Never" "Always" (hasKey . "ca") }}}
  issuerRef: {{- toYaml .issuer | nindent 4 }}
{{- end -}}

{{/* An authority of the release's own, for one plane only: (list $ PLANE) */}}
{{- define "pie-pool.authority" }}
{{- $root := index . 0 }}
{{- $name := printf "%s-%s-ca" (include "pie-pool.name" $root) (index . 1) }}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ $name }}-itself
  labels: {{- include "pie-pool.labels" (list $root "pool") | nindent 4 }}
spec:
  selfSigned: {}
{{- include "pie-pool.certificate" (dict "root" $root "suffix" (printf "%s-ca" (index . 1)) "ca" true "issuer" (dict "kind" "Issuer" "name" (printf "%s-itself" $name)) "usages" (list "cert sign" "digital signature")) }}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ $name }}
  labels: {{- include "pie-pool.labels" (list $root "pool") | nindent 4 }}
spec:
  ca: {secretName: {{ $name }}}
{{- end -}}
