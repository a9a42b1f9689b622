//! Operations over all gradients of a module: adding up, and the global norm.
//!
//! The order of every sum is fixed, so that a resumed run repeats bit for bit: rows are summed on
//! the device along their own axis, and the row sums in f64 on the host, in order. (A full `sum` of
//! more than about four million elements has no fixed order on flex.)

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{DType, Int, Tensor},
};
use wmtp_device::{ReadError, to_vec};
use wmtp_kernels::{Precision, row_sums::add_rows, square_sums::row_square_sums};
use wmtp_model::CausalLm;

/// Adds `new` to `total`, parameter by parameter; f32 sums whatever the storage type.
pub fn accumulate<M: Module>(module: &M, total: &mut GradientsParams, mut new: GradientsParams) {
    if total.is_empty() {
        *total = new;
        return;
    }
    module.visit(&mut Accumulate { total, new: &mut new });
}

struct Accumulate<'a> {
    total: &'a mut GradientsParams,
    new: &'a mut GradientsParams,
}

impl ModuleVisitor for Accumulate<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        add_one::<D>(self.total, self.new, param.id);
    }
}

fn add_one<const D: usize>(total: &mut GradientsParams, new: &mut GradientsParams, id: ParamId) {
    let Some(fresh) = new.remove::<D>(id) else { return };
    let sum = match total.remove::<D>(id) {
        Some(old) => wmtp_kernels::accumulate::accumulate(old, fresh),
        None => fresh,
    };
    total.register(id, sum);
}

/// Adds the gradient `rows` `[N, D]` of the embedded tokens `ids` to that of `model`'s embedding, which
/// is there already where it serves as unembedding.
pub fn add_embedded(grads: &mut GradientsParams, model: &dyn CausalLm, ids: Tensor<1, Int>, rows: Tensor<2>) {
    let embedding = model.embedding_id();
    let of_embedding = grads.remove::<2>(embedding).unwrap_or_else(|| {
        let dtype = match model.compute().gradients {
            Precision::Bf16 => DType::BF16,
            Precision::F32 => model.dtype(),
        };
        let shape = [model.config().vocab_size, rows.dims()[1]];
        Tensor::zeros(shape, (&rows.device(), dtype))
    });
    grads.register(embedding, add_rows(of_embedding, ids, rows));
}

/// The global norm: the root of the sum of squares of every gradient. NaN or infinite if any is.
///
/// # Errors
/// The device failed.
pub fn global_norm<M: Module>(module: &M, grads: &GradientsParams) -> Result<f64, ReadError> {
    let mut visitor = SquareSum { grads, sum: Ok(0.0) };
    module.visit(&mut visitor);
    visitor.sum.map(f64::sqrt)
}

struct SquareSum<'a> {
    grads: &'a GradientsParams,
    sum: Result<f64, ReadError>,
}

impl ModuleVisitor for SquareSum<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Ok(sum), Some(grad)) = (&self.sum, self.grads.get::<D>(param.id)) {
            self.sum = square_sum(grad).map(|squares| sum + squares);
        }
    }
}

/// Whether every parameter of a module is finite.
///
/// # Errors
/// The device failed.
pub fn is_finite<M: Module>(module: &M) -> Result<bool, ReadError> {
    let mut visitor = Zeros(Ok(0.0));
    module.visit(&mut visitor);
    visitor.0.map(|sum| sum == 0.0)
}

/// The sum of all parameters times 0: NaN where one is NaN or infinite.
struct Zeros(Result<f64, ReadError>);

impl ModuleVisitor for Zeros {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Ok(sum) = &self.0 {
            let zero = param.val().detach().mul_scalar(0.0).sum();
            self.0 = to_vec::<f64, 1>(zero).map(|zero| sum + zero.iter().sum::<f64>());
        }
    }
}

fn square_sum<const D: usize>(grad: Tensor<D>) -> Result<f64, ReadError> {
    let shape = grad.dims();
    let columns = shape[D - 1].max(1);
    let rows = row_square_sums(grad.reshape([shape.iter().product::<usize>() / columns, columns]));
    Ok(to_vec::<f64, 1>(rows)?.iter().sum())
}
