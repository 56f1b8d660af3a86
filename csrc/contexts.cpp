#include "contexts.h"

namespace cosparse {

Contexts::Contexts(int most) : most_(most) { free_.reserve(most); }  // so that giving back never allocates

// A condition variable on which threads of the parent wait must not be destroyed in the child: it would wait for them.
Contexts::~Contexts() {
  if (born_ != forks()) static_cast<void>(given_back_.release());
}

std::unique_ptr<Context> Contexts::take() {
  std::unique_lock<std::mutex> guard(lock_);
  if (born_ != forks()) {
    auto fresh = std::make_unique<std::condition_variable>();
    static_cast<void>(given_back_.release());
    given_back_ = std::move(fresh), made_ = (int)free_.size(), born_ = forks();
  }
  given_back_->wait(guard, [&] { return !free_.empty() || made_ < most_; });
  if (free_.empty()) {
    auto context = std::make_unique<Context>();
    ++made_;
    return context;
  }
  auto context = std::move(free_.back());
  free_.pop_back();
  return context;
}

void Contexts::give_back(std::unique_ptr<Context> context) noexcept {
  std::lock_guard<std::mutex> guard(lock_);
  free_.push_back(std::move(context));
  given_back_->notify_one();
}

}  // namespace cosparse
