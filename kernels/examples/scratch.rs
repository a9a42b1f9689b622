use wmtp_kernels::product::{View, product, Precision};
use std::time::Instant;
fn values(n: usize) -> Vec<f32> { let mut s=1u64; (0..n).map(|_|{ s=s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); ((s>>40) as f32)/(1u64<<24) as f32 - 0.5}).collect() }
fn main(){
  let pick: Option<usize> = std::env::args().nth(1).and_then(|x| x.parse().ok());
  for (i,(m,n,k,what)) in [(512,1536,576,"nt"),(512,576,1536,"nt"),(512,1536,576,"nn"),(576,1536,512,"tn"),(256,49152,576,"nt"),(256,576,49152,"nn"),(49152,576,256,"tn"),(2048,1536,576,"nt")].into_iter().enumerate() {
    if pick.is_some_and(|p| p!=i) { continue; }
    let a=values(m*k); let b=values(n*k); let mut c=vec![0f32;m*n];
    let left = if what=="tn" { View::rows(&a,[k,m]).transposed() } else { View::rows(&a,[m,k]) };
    let right = if what=="nt" { View::rows(&b,[n,k]).transposed() } else { View::rows(&b,[k,n]) };
    for p in [Precision::F32] {
      let mut best=f64::MAX; let mut all=vec![];
      let reps = if m*n*k > 4_000_000_000 { 30 } else { 300 };
      for _ in 0..reps { let t=Instant::now(); product(&mut c,n,false,left,right,p); let d=t.elapsed().as_secs_f64(); best=best.min(d); all.push(d);} all.sort_by(f64::total_cmp);
      let g=2.0*(m*n*k) as f64*1e-9;
      println!("{m:>6} x {n:>6} x {k:>6} {what} {p:?}: best {:.0} median {:.0} GFLOP/s", g/best, g/all[all.len()/2]);
    }
  }
}
