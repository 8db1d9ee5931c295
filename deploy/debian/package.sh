#!/bin/sh
# Makes target/debian/scorefront_*.deb of the release binary that was built: cargo build --release --locked. Needs cargo-deb.
set -eu
cd "$(dirname "$0")/../.."
program=target/release/scorefront
package=target/package
rm -rf "$package"
mkdir -p "$package/man"
"$program" man --out "$package/man"
"$program" completions bash > "$package/scorefront.bash"
"$program" completions zsh > "$package/_scorefront"
"$program" completions fish > "$package/scorefront.fish"
exec cargo deb --no-build --locked
