{{/* Certificates and tokens: which secrets, mounted where, named by which variables. */}}

{{- define "pie-pool.publicSecret" -}}
{{- if eq .Values.tls.public.source "secret" }}{{ .Values.tls.public.secret }}{{ else }}{{ include "pie-pool.name" . }}-public{{ end -}}
{{- end -}}

{{- define "pie-pool.clientSecret" -}}
{{- if eq .Values.tls.public.source "secret" }}{{ .Values.tls.public.clientSecret }}{{ else }}{{ include "pie-pool.name" . }}-client{{ end -}}
{{- end -}}

{{/* (list $ "router") */}}
{{- define "pie-pool.internalSecret" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.tls.internal.source "secret" -}}
{{- index $root.Values.tls.internal (printf "%sSecret" (index . 1)) -}}
{{- else -}}
{{- include "pie-pool.name" $root }}-{{ index . 1 }}-internal
{{- end -}}
{{- end -}}

{{/* The internal plane's identity of a role. */}}
{{- define "pie-pool.internalEnv" -}}
{{- if ne .Values.tls.internal.source "none" }}
- {name: PIE_INTERNAL_CERT, value: /etc/pie/internal/tls.crt}
- {name: PIE_INTERNAL_KEY, value: /etc/pie/internal/tls.key}
- {name: PIE_INTERNAL_CA, value: /etc/pie/internal/ca.crt}
{{- end }}
{{- end -}}

{{- define "pie-pool.internalMount" -}}
{{- if ne .Values.tls.internal.source "none" }}
- {name: internal, mountPath: /etc/pie/internal, readOnly: true}
{{- end }}
{{- end -}}

{{- define "pie-pool.internalVolume" -}}
{{- if ne (index . 0).Values.tls.internal.source "none" }}
- name: internal
  secret: {secretName: {{ include "pie-pool.internalSecret" . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* What a router shows to clients, and asks of them. */}}
{{- define "pie-pool.publicEnv" -}}
{{- if ne .Values.tls.public.source "none" }}
- {name: PIE_TLS_CERT, value: /etc/pie/public/tls.crt}
- {name: PIE_TLS_KEY, value: /etc/pie/public/tls.key}
{{- if .Values.tls.public.clientCertificates }}
- {name: PIE_TLS_CLIENT_CA, value: /etc/pie/public/ca.crt}
{{- end }}
{{- end }}
{{- if .Values.auth.tokensSecret }}
- {name: PIE_TOKENS, value: /etc/pie/tokens/tokens.toml}
{{- end }}
{{- end -}}

{{- define "pie-pool.publicMount" -}}
{{- if ne .Values.tls.public.source "none" }}
- {name: public, mountPath: /etc/pie/public, readOnly: true}
{{- end }}
{{- if .Values.auth.tokensSecret }}
- {name: tokens, mountPath: /etc/pie/tokens, readOnly: true}
{{- end }}
{{- end -}}

{{- define "pie-pool.publicVolume" -}}
{{- if ne .Values.tls.public.source "none" }}
- name: public
  secret: {secretName: {{ include "pie-pool.publicSecret" . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.auth.tokensSecret }}
- name: tokens
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* What `pie ctl` inside the release needs to call the routers. */}}
{{- define "pie-pool.clientEnv" -}}
{{- $tls := ne .Values.tls.public.source "none" -}}
- {name: PIE_POOL, value: "{{ ternary "https" "http" $tls }}://{{ include "pie-pool.name" . }}.{{ .Release.Namespace }}.svc:7400"}
{{- if $tls }}
- {name: PIE_CA, value: /etc/pie/ca/ca.crt}
{{- if .Values.tls.public.clientCertificates }}
- {name: PIE_CLIENT_CERT, value: /etc/pie/client/tls.crt}
- {name: PIE_CLIENT_KEY, value: /etc/pie/client/tls.key}
{{- end }}
{{- end }}
{{- if .Values.auth.adminTokenSecret }}
- {name: PIE_TOKEN_FILE, value: /etc/pie/token/token}
{{- end }}
{{- end -}}

{{- define "pie-pool.clientMount" -}}
{{- if ne .Values.tls.public.source "none" }}
- {name: ca, mountPath: /etc/pie/ca, readOnly: true}
{{- if .Values.tls.public.clientCertificates }}
- {name: client, mountPath: /etc/pie/client, readOnly: true}
{{- end }}
{{- end }}
{{- if .Values.auth.adminTokenSecret }}
- {name: token, mountPath: /etc/pie/token, readOnly: true}
{{- end }}
{{- end -}}

{{- define "pie-pool.clientVolume" -}}
{{- if ne .Values.tls.public.source "none" }}
- name: ca
  secret:
    secretName: {{ include "pie-pool.publicSecret" . }}
    # Not the key.
    items: [{key: ca.crt, path: ca.crt}]
    defaultMode: 0440
{{- if .Values.tls.public.clientCertificates }}
- name: client
  secret: {secretName: {{ include "pie-pool.clientSecret" . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- with .Values.auth.adminTokenSecret }}
- name: token
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}
