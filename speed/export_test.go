package speed

// ApartBehind is how many messages behind a plan gets a lane of its own.
const ApartBehind = apartBehind
