decoder d {
  input c3
  fpn(=64, norm=bn) {
    let d0 = 2 let d1 = d0 + d0 let d2 = d1 - d1 let d3 = d2 - d2 let d4 = d3 - d3 let d5 = d4 - d4 let d6 = d5 + d5 let d7 = d6 * ?(  d6 let d8 = d7 + d7 let d9 = d8 * d8 let d10 = d9 - d9 let d11 = d10 - d10 let d12 = d11 * d11 let d13 = d12 * d12 let d14 = d13 - d13 let d15 = d14 + d14 let d16 = d15 - d15 let d17 = d16 + d16 let d18 = d17 + d17 let d19 = d18 - d18 let d20 = d19 - d19 let d21 = d20 - d20 let d22 = d21 + d21 let d23 = d22 + d22 let d24 = d23 + d23 let d25 = d24 + d24 let d26 = d25 * d25 let d27 = d26 + d26 let d28 = d27 + d27 let d29 = d28 * d28 let d30 = d29 + d29 let d31 = d30 - d30 let d32 = d31 * d31 let d33 = d32 * d32 let d34 = d33 * d33 let d35 = d34 * d34 let d36 = d35 * d35 let d37 = d36 * d36 let d38 = d37 * d37 let d39 = d38 + d38 let d40 = d39 - d39 let d41 = d40 * d40 let d42 = d41 + d41 let d43 = d42 - d42 let d44 = d43 - d43 let d45 = d44 - d44 let d46 = d45 - d45 let d47 = d46 - d46 let d48 = d47 * d47 let d49 = d48 - d48 let d50 = d49 * d49 let d51 = d50 - d50 let d52 = d51 * d51 let d53 = d52 + d52 let d54 = d53 - d53 let d55 = d54 - d54 let d56 = d55 + d55 let d57 = d56 * d56 let d58 = d57 * d57 let d59 = d58 - d58 x = conv(c3, k=d59)
    output p3 = x
  }
  head(width=64, norm=gn) { skip }
  predict fcos
}
