# The cluster's front-end container. Build: docker build -t scorefront .
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
# aws-lc-rs builds C.
RUN apt-get update && apt-get install -y --no-install-recommends cmake gcc g++ make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
RUN cargo build --release --locked

FROM ${RUN_IMAGE}
COPY --from=build /src/target/release/scorefront /usr/local/bin/scorefront
USER 65532:65532
# https, http, admin
EXPOSE 8443 8080 8900
STOPSIGNAL SIGTERM
ENTRYPOINT ["scorefront"]
CMD ["serve", "--env", "/etc/scorefront"]
