# Ryggrad's one binary as an image: built on Debian 12, run on Debian 12 by nobody in particular.
# compose.yaml says how its parts run together; tests/tests/compose.rs holds both to the rest.

FROM rust:1.95-bookworm AS builder
# The same packages as ./ryggrad installs before it builds: librdkafka is built from source.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ gcc libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin ryggrad

FROM debian:bookworm-slim
# What the binary is linked to, the roots that it trusts, and curl for the health checks.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/ryggrad ryggrad \
    && install -d -o ryggrad -g ryggrad -m 0700 /var/lib/ryggrad
COPY --from=builder /src/target/release/ryggrad /usr/local/bin/ryggrad
USER ryggrad
# Keys and cursors. A volume here keeps them; see docs/how-to/operate.md.
ENV RYGGRAD_DATA=/var/lib/ryggrad
WORKDIR /var/lib/ryggrad
EXPOSE 8484 8485
ENTRYPOINT ["ryggrad"]
CMD ["--help"]
