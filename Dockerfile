# The cluster's front-end container. Build: docker build -t scorefront .
#
# The two base images can be others: one with this Rust and a C compiler (aws-lc-rs builds C), and one with the C library
# of the first. Nothing else is needed to run: no shell, no package manager, no file of authorities.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Without symbols the program is a fifth of its size; a panic says its place all the same.
ENV CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols
# For who wants to see whether it builds, and not to run it: `off` and `0` take a third of the time.
ARG CARGO_PROFILE_RELEASE_LTO=fat
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL=3
# First what it depends on, beside a package without content: a layer that stays as long as these two files do. What that
# package itself left is cleaned away, so that nothing of it is taken for the real one.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
    && touch src/lib.rs benches/request_path.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked \
    && cargo clean --release --locked --package scorefront \
    && rm -r src
COPY src src
RUN cargo build --release --locked

FROM ${RUN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="scorefront" \
      org.opencontainers.image.description="The real-time scoring front end of a model-serving cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /src/target/release/scorefront /usr/local/bin/scorefront
USER 65532:65532
# https, http, admin
EXPOSE 8443 8080 8900
STOPSIGNAL SIGTERM
# Of an admin address other than port 8900, SCOREFRONT_ADMIN says where it is.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/scorefront", "health"]
ENTRYPOINT ["/usr/local/bin/scorefront"]
CMD ["serve", "--env", "/etc/scorefront"]
