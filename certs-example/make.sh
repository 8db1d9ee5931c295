#!/bin/sh
# Makes this directory's certificates anew: an authority of their own and one pair for each example CNAME.
# They are examples: their keys are public. Never serve them.
set -eu
cd "$(dirname "$0")"

days=7300
openssl ecparam -name prime256v1 -genkey -noout -out ca-key.pem
openssl req -x509 -new -key ca-key.pem -days $days -subj "/CN=scorefront example CA" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.pem

pair() { # directory, subjectAltName
    mkdir -p "$1"
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1/key.pem"
    chmod 640 "$1/key.pem"
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$2" > extensions.cnf
    openssl req -new -key "$1/key.pem" -subj "/CN=$1" | openssl x509 -req -CA ca.pem -CAkey ca-key.pem \
        -CAcreateserial -days $days -extfile extensions.cnf -out leaf.pem
    cat leaf.pem ca.pem > "$1/cert.pem" # the full chain: the CNAME's own certificate first
    rm -f leaf.pem extensions.cnf
}

pair scoring.example.com "DNS:scoring.example.com"
pair models.example.com "DNS:*.models.example.com"
rm -f ca-key.pem ca.srl
