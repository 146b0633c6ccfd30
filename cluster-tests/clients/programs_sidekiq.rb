# The Sidekiq application of test_programs.py; REDIS_URL says where. Run by itself it gives its worker something to do.

require "sidekiq"
require "sidekiq/api"

class Add
  include Sidekiq::Worker
  sidekiq_options retry: 2
  sidekiq_retry_in { 1 }

  def perform(a, b)
    Sidekiq.redis { |r| r.rpush("sums", a + b) }
  end
end

class SucceedAtSecondTry
  include Sidekiq::Worker
  sidekiq_options retry: 2
  sidekiq_retry_in { 1 }

  def perform
    raise "not yet" if Sidekiq.redis { |r| r.incr("tries") } < 2
    Sidekiq.redis { |r| r.rpush("sums", "again") }
  end
end

if $PROGRAM_NAME == __FILE__
  10.times { |n| Add.perform_async(n, 1) }
  Add.perform_in(2, 40, 2)
  SucceedAtSecondTry.perform_async
end
