# The program alone: production has its own NATS and ClickHouse.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=${VERSION}" -o /out/watershed ./cmd/watershed

FROM debian:12.12-slim
RUN useradd --system --uid 10001 --no-create-home watershed \
 && install -d -o watershed -g watershed /data /definitions
COPY --from=build /out/watershed /usr/local/bin/watershed
COPY --from=build /src/schemas/examples/flights /definitions
USER watershed
VOLUME /data
EXPOSE 8484
ENTRYPOINT ["/usr/local/bin/watershed"]
CMD ["--help"]
